"""MPCache (arXiv 2501.06807, NeurIPS 2025): look-once static eviction, then query-aware selection of clusters."""

from collections.abc import Hashable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from parties.decoding.clusters import Clustering, Selection
from parties.decoding.program import Program, staged
from parties.policies.base import LATER, Policy
from parties.policies.checks import OutOfRange, one_of, share, whole
from parties.policies.clusters import SIMILARITY_BITS, USES, Use, prepared
from parties.policies.page_bounds import Levels, compute_bounds, update_bounds
from parties.policies.prompt_scores import attention_of

if TYPE_CHECKING:
    from parties.decoding.cache import Cache, LayerCache
    from parties.engines.base import Engine
    from parties.models.spec import ModelSpec


@dataclass(frozen=True)
class MPCache(Policy):
    """Evicts once by the attention of the end of the prompt, then selects clusters of keys at each step.

    At the end of prefill, the attention of the last `window` share of the prompt's queries is summed over queries and
    heads, and the highest `static_keep` share of the prompt's tokens is kept, in order (section 4.1 of the paper;
    scores are scaled and causally masked). At each step the cached tokens form clusters of adjacent tokens; a cluster
    is represented by r = alpha * max + (1 - alpha) * min over its keys, per coordinate, and its similarity is q . r, a
    linear approximation of Quest's upper bound sum_i max(q_i max_i, q_i min_i) (section 4.3). First the `coarse` share
    of the coarse clusters is selected, then the `select` share of all fine clusters among their children.

    Where the released code differs, we follow the paper or keep counts public and fixed. The code keeps tokens above a
    threshold tuned per data set, so that the number of kept tokens depends on the prompt; it adds the first and the
    last cluster to the selected ones as a union, so that their number depends on the query. Here the first and the
    last cluster are always attended to and do not compete. The code's second level tests T mod 32 for the last cluster;
    here each level uses its own size.

    Attributes:
        static_keep: Share of the prompt's tokens that is kept after prefill, in (0, 1].
        select: Share of all fine clusters selected at each step, in [0, 1].
        coarse: Share of the coarse clusters selected at the first level, in [0, 1].
        alpha: Weight of a cluster's maximum in its representative, in [0, 1].
        window: Share of the prompt whose queries rate the tokens, in (0, 1].
        fine_size: Number of tokens in a fine cluster.
        coarse_size: Number of tokens in a coarse cluster; a multiple of `fine_size`.
        share_from: First layer that shares its indices with its neighbours; earlier layers select for themselves.
        share_layers: Number of adjacent layers that use the same kept tokens and the same selection.
        ahead: Selects one layer early, in parallel with the layer before, by a query guessed from that layer's input
            (as in InfiniGen, OSDI 2024); the first layer then attends to all cached tokens. Not in the paper.
        by: Whether each query head selects for itself, or those that share a key head together, by the mean of their
            queries: fewer rankings, and fewer rows to fetch. The paper has a selection for each head.
        use: How `fss` attends to a selection. `scores`: it scores all keys, fetches the scores of the selected tokens
            and puts their weights back, in two rounds with few bytes. `rows`: it fetches keys and values, with `ahead`
            in parallel with the layer before. `auto`: whichever takes less time on the links. Others fetch rows.
    """

    name: ClassVar[str] = "mpcache"
    draft_fix: ClassVar[str] = "take by: query_head and use: scores, or no draft"
    keeps: ClassVar[str] = (
        "one share of the prompt for all heads, and all generated tokens; a step attends, by query head, to the first "
        "cluster, the last one and those most similar to its query"
    )
    prefill_cost: ClassVar[str] = (
        "H w n exponentials for a window of w; one selection of B among n; 4 G d B comparisons for the page bounds"
    )
    step_cost: ClassVar[str] = (
        "4 G d comparisons to update page bounds; by query head two rankings of clusters, T/32 and about T/16; "
        "fetching the selected clusters' rows, or in `fss` their scores; with `ahead` a product for each guessed query"
    )
    source: ClassVar[str] = (
        "Zeng et al., arXiv 2501.06807; released code zwxandy/MPCache. Fixed counts where the code has thresholds"
    )
    by_head: ClassVar[bool] = True

    static_keep: float = 0.4
    select: float = 0.2
    coarse: float = 0.5
    alpha: float = 0.6
    window: float = 0.2
    fine_size: int = 16
    coarse_size: int = 32
    share_from: int = 2
    share_layers: int = 2
    ahead: bool = field(default=False, metadata=LATER)
    by: Literal["query_head", "key_head"] = field(default="query_head", metadata=LATER)
    use: Use = field(default="scores", metadata=LATER)

    def __post_init__(self) -> None:
        """Checks the ranges.

        Raises:
            ValueError: A parameter is outside its range; the message names it, its value and the allowed values.
        """
        for name in ("static_keep", "window"):
            share(name, getattr(self, name), zero=False)
        for name in ("select", "coarse", "alpha"):
            share(name, getattr(self, name))
        for name, least in (("fine_size", 1), ("coarse_size", 1), ("share_from", 0), ("share_layers", 1)):
            whole(name, getattr(self, name), least)
        one_of("ahead", self.ahead, (False, True))
        one_of("by", self.by, ("query_head", "key_head"))
        one_of("use", self.use, USES)
        if self.coarse_size % self.fine_size:
            raise OutOfRange("coarse_size", self.coarse_size, f"a multiple of fine_size {self.fine_size}")

    def source_layer(self, layer: int) -> int:
        """Returns the layer whose kept tokens and selection `layer` uses."""
        if layer < self.share_from:
            return layer
        return layer - (layer - self.share_from) % self.share_layers

    def chooses(self, layer: int) -> bool:
        """Whether a layer has a selection of its own. With `ahead` the first layer and those that share with it do not.

        They attend to all cached tokens.
        """
        return layer == self.source_layer(layer) and (layer > 0 or not self.ahead)

    def cached(self, prompt: int) -> int:
        """The rounded share of `prompt` tokens, at least one."""
        return max(1, round(self.static_keep * prompt))

    def attended(self, tokens: int) -> int:
        """Tokens of the first, the last and the selected clusters; with `ahead` for all layers but the first."""
        return sum(stop - start for start, stop in self._clusters(tokens).always) + self.selected(tokens)

    def selected(self, tokens: int) -> int:
        """Tokens of the selected clusters."""
        return self._clusters(tokens).top_k(self.coarse, self.select)[1] * self.fine_size

    def selecting_heads(self, spec: "ModelSpec") -> int:
        """Query heads or key heads, as `by` says."""
        return spec.n_heads if self.by == "query_head" else spec.n_kv_heads

    def after_prefill(self, engine: "Engine", cache: "Cache", layer: int, q: Any) -> Program[None]:
        """Keeps the tokens that the end of the prompt attends to, and computes the bounds of their keys."""
        here, source = cache.layers[layer], self.source_layer(layer)
        if layer == source:
            scores = yield from staged(engine.meter, "evict", self._static_scores(engine, here, q))
            count = self.cached(here.tokens)
            here.kept = yield from staged(engine.meter, "evict", engine.keep_top(scores, count))
        kept = cache.layers[source].kept
        here.k, here.v = yield from staged(engine.meter, "evict", engine.compact(kept, [here.k, here.v]))
        if self.chooses(layer):
            yield from staged(engine.meter, "similarity", compute_bounds(engine, here, self._levels()))

    def before_attention(self, engine: "Engine", cache: "Cache", layer: int, q: Any) -> Program[Selection | None]:
        """Selects clusters by similarity, or uses the selection of the layer's source layer, or the one made ahead."""
        if self.needs_query(layer):
            yield from self._choose(engine, cache, layer, cache.layers[layer].tokens, q)
        return self._selection_of(cache, layer, cache.layers[layer].tokens)

    def needs_query(self, layer: int) -> bool:
        """Only a layer that selects for itself, and not ahead."""
        return self.chooses(layer) and not self.ahead

    def known_selection(self, cache: "Cache", layer: int) -> Selection | None:
        """The selection of the layer's source layer, or the one made ahead."""
        return self._selection_of(cache, layer, cache.layers[layer].tokens + 1)

    def _selection_of(self, cache: "Cache", layer: int, tokens: int) -> Selection | None:
        selection = cache.layers[layer].selection
        return selection and replace(selection, always=self._clusters(tokens).always)

    def step_name(self, cache: "Cache", layer: int) -> Hashable | None:
        """The geometry of the clusters, and which of them the new token joins."""
        tokens = cache.layers[layer].tokens + 1
        clusters = self._clusters(tokens)
        begun = tuple((tokens - 1) % size == 0 for size in self._levels().values())
        return (clusters.n_fine, clusters.n_coarse, begun)

    def layer_kind(self, layer: int, n_layers: int) -> Hashable:
        """Which layers around it share its selection, or that of the next layer, and whether these two select."""
        sources = [(other, self.source_layer(other)) for other in range(n_layers)]
        near = [(other - layer, source - layer) for other, source in sources if source in (layer, layer + 1)]
        return (tuple(near), *(self.chooses(here) for here in (layer, layer + 1)))

    def pass_key(self, tokens: int, generated: int) -> Hashable | None:  # noqa: ARG002
        """The geometry of the clusters: the last one grows by the tokens of a pass, and does not compete.

        None where heads share a selection or rows are fetched: a pass takes its tokens for further heads.
        """
        if (self.by, self.use) != ("query_head", "scores"):
            return None
        clusters = self._clusters(tokens)
        return (clusters.n_fine, clusters.n_coarse)

    def selects_ahead(self, layer: int) -> bool:
        """For each layer with a selection of its own but the first."""
        return self.ahead and self.chooses(layer)

    def select_ahead(self, engine: "Engine", cache: "Cache", layer: int, q: Any) -> Program[None]:
        """Selects among the clusters that are complete: the last one, which the new token joins, does not compete."""
        yield from self._choose(engine, cache, layer, cache.layers[layer].tokens + 1, q)

    def _choose(self, engine: "Engine", cache: "Cache", layer: int, tokens: int, q: Any) -> Program[None]:
        """Makes the selection of a layer and of those that share it, from `tokens` tokens, the new one included."""
        here = cache.layers[layer]
        clusters = self._clusters(tokens)
        k_coarse, k_fine = clusters.top_k(self.coarse, self.select)
        selected = None
        if k_fine:
            coarse, fine = yield from staged(engine.meter, "similarity", self._similarities(engine, here, clusters, q))
            program = engine.top_clusters(
                coarse,
                fine,
                clusters.parents,
                k_coarse,
                k_fine,
                fraction_bits=SIMILARITY_BITS,
                spare_rounds=self.ahead,
            )
            selected = yield from staged(engine.meter, "topk", program)
        candidates = clusters.fine_candidates
        span = (candidates.start * self.fine_size, candidates.stop * self.fine_size)
        made = Selection(self.fine_size, clusters.always, span, k_fine, selected)
        sharing = [other for i, other in enumerate(cache.layers) if self.source_layer(i) == layer]
        selections = yield from prepared(engine, made, sharing, self.use)
        for other, selection in zip(sharing, selections, strict=True):
            other.selection = selection

    def after_attention(self, engine: "Engine", cache: "Cache", layer: int, weights: Any) -> Program[None]:  # noqa: ARG002
        """Updates the last cluster's bounds with the new key; only complete clusters compete."""
        if self.chooses(layer):
            yield from staged(engine.meter, "similarity", update_bounds(engine, cache.layers[layer], self._levels()))

    def _clusters(self, tokens: int) -> Clustering:
        return Clustering(tokens, self.fine_size, self.coarse_size)

    def _static_scores(self, engine: "Engine", here: "LayerCache", q: Any) -> Program[Any]:
        """Sums the attention of each prompt token from the last queries, over queries and heads: [n]."""
        n = here.tokens
        first = n - max(1, int(self.window * n))
        return (yield from attention_of(engine, q, here.k, first, lambda weights: weights.sum(0).sum(0), rows=n))

    def _similarities(
        self, engine: "Engine", here: "LayerCache", clusters: Clustering, q: Any
    ) -> Program[tuple[Any, Any]]:
        """Similarities q . r of the coarse and of the fine candidates, in one product: [selections, candidates] each.

        q . (alpha max + (1 - alpha) min) = q . min + alpha q . (max - min): only the query, which is short, is scaled.
        """
        if self.by == "key_head":
            (heads, n, d), kv_heads = q.shape, here.k.shape[0]
            q = engine.to_cache(q.reshape(kv_heads, heads // kv_heads, n, d).sum(1) * (kv_heads / heads))
        candidates = {"coarse": clusters.coarse_candidates, "fine": clusters.fine_candidates}
        ends = engine.cat([self._ends(engine, here, level, candidates[level]) for level in self._levels()], dim=1)
        similarity = yield from engine.scores(engine.cat([q, q * self.alpha], dim=2), ends)
        cut = len(clusters.coarse_candidates)
        return similarity[:, 0, :cut], similarity[:, 0, cut:]

    def _ends(self, engine: "Engine", here: "LayerCache", level: str, candidates: range) -> Any:
        """Returns the candidates' min and max - min, concatenated, [kv_heads, candidates, 2 head_dim]."""
        high, low = (here.state[f"{end}_{level}"][:, candidates.start : candidates.stop] for end in ("high", "low"))
        return engine.cat([low, high - low], dim=2)

    def _levels(self) -> Levels:
        return {"coarse": self.coarse_size, "fine": self.fine_size}
