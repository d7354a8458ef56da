"""MPCache (arXiv 2501.06807, NeurIPS 2025): look-once static eviction, then query-aware selection of clusters."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from parties.decoding.clusters import Clustering, Selection
from parties.decoding.program import Program, staged
from parties.policies.base import Policy
from parties.policies.checks import OutOfRange, share, whole
from parties.policies.page_bounds import Levels, box_all, grow
from parties.policies.prompt_scores import attention_of

if TYPE_CHECKING:
    from parties.decoding.cache import Cache, LayerCache
    from parties.engines.base import Engine


@dataclass(frozen=True)
class MPCache(Policy):
    """Evicts once by what the end of the prompt looks at, then selects clusters of keys at each step; counts are fixed.

    Once, at the end of prefill: the attention of the last `window` share of the prompt's queries is summed over
    queries and heads, and the highest `static_keep` share of the prompt's tokens stays, in order (section 4.1 of the
    paper; scores are scaled and causally masked). At each step the cached tokens form clusters of adjacent tokens; a
    cluster is represented by r = alpha * max + (1 - alpha) * min over its keys, coordinate by coordinate, and its
    similarity is q . r, a linear stand-in for Quest's upper bound sum_i max(q_i max_i, q_i min_i) (section 4.3). The
    `coarse` share of the coarse clusters survives, then the `select` share of all fine clusters is chosen among their
    children.

    Where the released code differs, we follow the paper or what keeps counts public: it keeps tokens above a
    threshold tuned for each data set, so that the kept count depends on the prompt; it adds the first and the last
    cluster to the winners as a union, so that the count depends on the query. Here both are fixed: the first and the
    last cluster are always attended and do not compete. Its level 2 tests T mod 32 for the last cluster; here each
    level uses its own size.

    Attributes:
        static_keep: share of the prompt's tokens that stays after prefill, in (0, 1].
        select: share of all fine clusters chosen at each step, in [0, 1].
        coarse: share of the coarse clusters that survives the first level, in [0, 1].
        alpha: weight of a cluster's maximum in its representative, in [0, 1].
        window: share of the prompt whose queries rate the tokens, in (0, 1].
        fine_size: tokens in a fine cluster.
        coarse_size: tokens in a coarse cluster; a multiple of `fine_size`.
        share_from: first layer that shares its indices with a neighbour; earlier layers decide alone.
        share_layers: number of adjacent layers that use the same kept tokens and the same selection.
    """

    name: ClassVar[str] = "mpcache"
    keeps: ClassVar[str] = (
        "one share of the prompt for all heads, and all that is generated; a step attends, by query head, to the first "
        "cluster, the last one and those that its query is most similar to"
    )
    prefill_cost: ClassVar[str] = (
        "H w n exponentials for a window of w; one selection of B among n; 4 G d B comparisons for the boxes"
    )
    step_cost: ClassVar[str] = (
        "4 G d comparisons to grow boxes; by query head two rankings of clusters, T/32 and about T/16; fetching the "
        "chosen clusters' rows, or in `fss` their scores"
    )
    source: ClassVar[str] = (
        "Zeng et al., arXiv 2501.06807; released code zwxandy/MPCache. Fixed counts where the code has thresholds"
    )

    static_keep: float = 0.4
    select: float = 0.2
    coarse: float = 0.5
    alpha: float = 0.6
    window: float = 0.2
    fine_size: int = 16
    coarse_size: int = 32
    share_from: int = 2
    share_layers: int = 2

    def __post_init__(self) -> None:
        """Checks the ranges.

        Raises:
            ValueError: names the parameter, its value and what is allowed.
        """
        for name in ("static_keep", "window"):
            share(name, getattr(self, name), zero=False)
        for name in ("select", "coarse", "alpha"):
            share(name, getattr(self, name))
        for name, least in (("fine_size", 1), ("coarse_size", 1), ("share_from", 0), ("share_layers", 1)):
            whole(name, getattr(self, name), least)
        if self.coarse_size % self.fine_size:
            raise OutOfRange("coarse_size", self.coarse_size, f"a multiple of fine_size {self.fine_size}")

    def leader(self, layer: int) -> int:
        """The layer whose indices `layer` uses."""
        if layer < self.share_from:
            return layer
        return layer - (layer - self.share_from) % self.share_layers

    def cached(self, prompt: int) -> int:
        """How many of `prompt` prefilled tokens stay: the rounded share, at least one."""
        return max(1, round(self.static_keep * prompt))

    def attended(self, tokens: int) -> int:
        """How many of `tokens` cached tokens one step attends to."""
        clusters = self._clusters(tokens)
        _, picked = clusters.winners(self.coarse, self.select)
        return sum(stop - start for start, stop in clusters.always) + picked * self.fine_size

    def after_prefill(self, engine: "Engine", cache: "Cache", layer: int, q: Any) -> Program[None]:
        """Keeps the tokens that the end of the prompt looked at, and boxes their keys."""
        here, leader = cache.layers[layer], self.leader(layer)
        if layer == leader:
            scores = yield from staged(engine.meter, "evict", self._static_scores(engine, here, q))
            count = self.cached(here.tokens)
            here.kept = yield from staged(engine.meter, "evict", engine.keep_top(scores, count))
        kept = cache.layers[leader].kept
        here.k, here.v = yield from staged(engine.meter, "evict", engine.compact(kept, [here.k, here.v]))
        if layer == leader:
            yield from staged(engine.meter, "similarity", box_all(engine, here, self._levels()))

    def before_attention(self, engine: "Engine", cache: "Cache", layer: int, q: Any) -> Program[Selection | None]:
        """Chooses clusters by similarity, or takes the choice of the layer's leader."""
        here, leader = cache.layers[layer], self.leader(layer)
        if layer != leader:
            return cache.layers[leader].selection
        clusters = self._clusters(here.tokens)
        k_coarse, k_fine = clusters.winners(self.coarse, self.select)
        picks = None
        if k_fine:
            coarse, fine = yield from staged(engine.meter, "similarity", self._similarities(engine, here, clusters, q))
            choice = engine.top_clusters(coarse, fine, clusters.parents, k_coarse, k_fine)
            picks = yield from staged(engine.meter, "topk", choice)
        rivals = clusters.fine_rivals
        span = (rivals.start * self.fine_size, rivals.stop * self.fine_size)
        here.selection = Selection(self.fine_size, clusters.always, span, k_fine, picks)
        return here.selection

    def after_attention(self, engine: "Engine", cache: "Cache", layer: int, weights: Any) -> Program[None]:  # noqa: ARG002
        """Takes the new key into its box; what competes is complete before."""
        if layer == self.leader(layer):
            yield from staged(engine.meter, "similarity", grow(engine, cache.layers[layer], self._levels()))

    def _clusters(self, tokens: int) -> Clustering:
        return Clustering(tokens, self.fine_size, self.coarse_size)

    def _static_scores(self, engine: "Engine", here: "LayerCache", q: Any) -> Program[Any]:
        """Attention that each prompt token gets from the last queries, summed over queries and heads: [n]."""
        n = here.tokens
        first = n - max(1, int(self.window * n))
        return (yield from attention_of(engine, q, here.k, first, lambda weights: weights.sum(0).sum(0), rows=n))

    def _similarities(
        self, engine: "Engine", here: "LayerCache", clusters: Clustering, q: Any
    ) -> Program[tuple[Any, Any]]:
        """Similarities q . r of the rivals, in one product: coarse [heads, rivals] and fine [heads, rivals].

        q . (alpha max + (1 - alpha) min) = q . min + alpha q . (max - min): the query is scaled, short and new.
        """
        rivals = {"coarse": clusters.coarse_rivals, "fine": clusters.fine_rivals}
        boxes = engine.cat([self._ends(engine, here, level, rivals[level]) for level in self._levels()], dim=1)
        similarity = yield from engine.scores(engine.cat([q, q * self.alpha], dim=2), boxes)
        cut = len(clusters.coarse_rivals)
        return similarity[:, 0, :cut], similarity[:, 0, cut:]

    def _ends(self, engine: "Engine", here: "LayerCache", level: str, rivals: range) -> Any:
        """The rivals' min and max - min, side by side, [kv_heads, rivals, 2 head_dim]."""
        high, low = (here.state[f"{end}_{level}"][:, rivals.start : rivals.stop] for end in ("high", "low"))
        return engine.cat([low, high - low], dim=2)

    def _levels(self) -> Levels:
        return {"coarse": self.coarse_size, "fine": self.fine_size}
