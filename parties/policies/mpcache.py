"""MPCache (arXiv 2501.06807, NeurIPS 2025): look-once static eviction, then query-aware selection of clusters."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from parties.policies.base import Policy
from parties.program import Program, parallel, staged
from parties.selection import Clustering, Selection

if TYPE_CHECKING:
    from parties.cache import Cache, LayerCache
    from parties.engines.base import Engine


@dataclass(frozen=True)
class MPCache(Policy):
    """MPCache with public, fixed counts.

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
        for name, lowest in (
            ("static_keep", "(0"),
            ("window", "(0"),
            ("select", "[0"),
            ("coarse", "[0"),
            ("alpha", "[0"),
        ):
            value = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not 0 <= value <= 1 or (lowest == "(0" and value == 0):
                raise ValueError(f"{name}: {value!r} is not a number in {lowest}, 1]; it is a share, not a percentage")
        for name, least in (("fine_size", 1), ("coarse_size", 1), ("share_from", 0), ("share_layers", 1)):
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise ValueError(f"{name}: {value!r} is not a whole number of at least {least}")
        if self.coarse_size % self.fine_size:
            raise ValueError(f"coarse_size: {self.coarse_size} is not a multiple of fine_size {self.fine_size}")

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
            yield from staged(engine.meter, "similarity", self._box_all(engine, here))

    def before_attention(self, engine: "Engine", cache: "Cache", layer: int, q: Any) -> Program[Selection | None]:
        """Chooses clusters by similarity, or takes the choice of the layer's leader."""
        here, leader = cache.layers[layer], self.leader(layer)
        if layer != leader:
            return cache.layers[leader].selection
        yield from staged(engine.meter, "similarity", self._grow_boxes(engine, here))
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

    def _clusters(self, tokens: int) -> Clustering:
        return Clustering(tokens, self.fine_size, self.coarse_size)

    def _static_scores(self, engine: "Engine", here: "LayerCache", q: Any) -> Program[Any]:
        """Attention that each prompt token gets from the last queries, summed over queries and heads: [n]."""
        n = here.tokens
        first = n - max(1, int(self.window * n))
        scores = yield from engine.scores(q[:, first:], here.k)
        weights = yield from engine.softmax(scores, engine.causal_mask(first, n))
        return weights.sum(0).sum(0)

    def _box_all(self, engine: "Engine", here: "LayerCache") -> Program[None]:
        """Boxes of all clusters of a level side by side, then of the next."""
        heads = here.k.shape[0]
        for level, size in self._levels():
            clusters = [here.k[:, start : start + size] for start in range(0, here.tokens, size)]
            ends = [engine.largest(engine.cat([keys, -keys], dim=0), dim=1) for keys in clusters]
            both = engine.cat((yield from parallel(*ends)), dim=1)
            here.state[f"high_{level}"], here.state[f"low_{level}"] = both[:heads], -both[heads:]

    def _grow_boxes(self, engine: "Engine", here: "LayerCache") -> Program[None]:
        """Takes the newest token into the last cluster of each level, with one comparison for all levels."""
        key = here.k[:, -1:]
        joined = [level for level, size in self._levels() if (here.tokens - 1) % size]
        if joined:
            ends = [
                end
                for level in joined
                for end in (here.state[f"high_{level}"][:, -1:], -here.state[f"low_{level}"][:, -1:])
            ]
            larger = yield from engine.maximum(engine.cat(ends, dim=0), engine.cat([key, -key] * len(joined), dim=0))
        for level, _ in self._levels():
            high, low = here.state[f"high_{level}"], here.state[f"low_{level}"]
            if level in joined:
                heads = key.shape[0]
                at = 2 * joined.index(level) * heads
                new_high, new_low = larger[at : at + heads], -larger[at + heads : at + 2 * heads]
                high, low = high[:, :-1], low[:, :-1]
            else:
                new_high = new_low = key
            here.state[f"high_{level}"] = engine.cat([high, new_high], dim=1)
            here.state[f"low_{level}"] = engine.cat([low, new_low], dim=1)

    def _similarities(
        self, engine: "Engine", here: "LayerCache", clusters: Clustering, q: Any
    ) -> Program[tuple[Any, Any]]:
        """Similarities q . r of the rivals, in one product: coarse [heads, rivals] and fine [heads, rivals]."""
        rivals = {"coarse": clusters.coarse_rivals, "fine": clusters.fine_rivals}
        boxes = [self._representatives(here, level, rivals[level]) for level, _ in self._levels()]
        similarity = yield from engine.scores(q, engine.cat(boxes, dim=1))
        cut = len(clusters.coarse_rivals)
        return similarity[:, 0, :cut], similarity[:, 0, cut:]

    def _representatives(self, here: "LayerCache", level: str, rivals: range) -> Any:
        """The rivals' alpha * max + (1 - alpha) * min, [kv_heads, rivals, head_dim]."""
        high, low = (here.state[f"{end}_{level}"][:, rivals.start : rivals.stop] for end in ("high", "low"))
        return (high - low) * self.alpha + low

    def _levels(self) -> Sequence[tuple[str, int]]:
        return (("coarse", self.coarse_size), ("fine", self.fine_size))
