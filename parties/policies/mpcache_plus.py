"""A variant of MPCache: eviction as in SnapKV, then selection of clusters by exact bounds."""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from parties.decoding.clusters import Clustering, Selection
from parties.decoding.program import Program, staged
from parties.policies.base import Policy
from parties.policies.checks import share, whole
from parties.policies.clusters import select
from parties.policies.page_bounds import Levels, compute_bounds, update_bounds, upper_bounds
from parties.policies.snapkv import SnapKV

if TYPE_CHECKING:
    from parties.decoding.cache import Cache
    from parties.engines.base import Engine


@dataclass(frozen=True)
class MPCachePlus(Policy):
    """Evicts once by key head as SnapKV does, then selects clusters at each step by their exact bounds.

    Attributes:
        static_keep: Share of the prompt's tokens that is kept after prefill, in (0, 1].
        select: Share of all clusters selected at each step, in [0, 1], in addition to the first and the last one.
        cluster_size: Number of tokens in a cluster.
        window_size: Number of last prompt tokens, whose queries rate the others and which are always kept.
        kernel_size: Number of tokens over which ratings are averaged, odd.
        dense_layers: Number of first layers that attend to all kept tokens.
    """

    name: ClassVar[str] = "mpcache+"
    keeps: ClassVar[str] = (
        "as `snapkv` after the prompt; a step attends, by query head, to the first cluster, the last one and the most "
        "promising ones"
    )
    prefill_cost: ClassVar[str] = (
        "H w n exponentials for a window of w; one selection of B among n by key head, which moves 2 G n rows; 2 G d B "
        "comparisons for the page bounds"
    )
    step_cost: ClassVar[str] = (
        "H d signs of the query and 2 G d comparisons to update page bounds; by query head one ranking of T/16 "
        "clusters; fetching the selected clusters' rows, or in `fss` their scores"
    )
    source: ClassVar[str] = "ours, after MPCache (arXiv 2501.06807), SnapKV (2404.14469) and Quest (2406.10774)"
    by_head: ClassVar[bool] = True

    experimental: ClassVar[str] = (
        "it takes longer than `mpcache`, and `tova` finds more needles in half its time "
        "(docs/design/0014-policies-on-text.md)"
    )

    static_keep: float = 0.4
    select: float = 0.2
    cluster_size: int = 16
    window_size: int = 64
    kernel_size: int = 5
    dense_layers: int = 0

    def __post_init__(self) -> None:
        """Checks the ranges.

        Raises:
            ValueError: A parameter is outside its range; the message names it, its value and the allowed values.
        """
        share("static_keep", self.static_keep, zero=False)
        share("select", self.select)
        whole("cluster_size", self.cluster_size, 1)
        whole("dense_layers", self.dense_layers, 0)
        SnapKV(window_size=self.window_size, kernel_size=self.kernel_size)

    @property
    def _static(self) -> SnapKV:
        return SnapKV(1 - self.static_keep, window_size=self.window_size, kernel_size=self.kernel_size)

    def cached(self, prompt: int) -> int:
        """The static share."""
        return self._static.cached(prompt)

    def attended(self, tokens: int) -> int:
        """Tokens of the first, the last and the selected clusters."""
        clusters = self._clusters(tokens)
        return sum(stop - start for start, stop in clusters.always) + self._chosen(clusters) * self.cluster_size

    def after_prefill(self, engine: "Engine", cache: "Cache", layer: int, q: Any) -> Program[None]:
        """Keeps the tokens that the end of the prompt attends to, and computes the bounds of their keys."""
        yield from self._static.after_prefill(engine, cache, layer, q)
        if layer >= self.dense_layers:
            yield from staged(engine.meter, "similarity", compute_bounds(engine, cache.layers[layer], self._levels()))

    def before_attention(self, engine: "Engine", cache: "Cache", layer: int, q: Any) -> Program[Selection | None]:
        """Selects clusters by their bounds."""
        if layer < self.dense_layers:
            return None
        here = cache.layers[layer]
        clusters = self._clusters(here.tokens)
        candidates, count, bounds = clusters.fine_candidates, self._chosen(clusters), None
        if count:
            bounds = yield from staged(engine.meter, "similarity", upper_bounds(engine, here, "cluster", candidates, q))
        first = candidates.start * self.cluster_size
        return (yield from select(engine, here, bounds, count, first, self.cluster_size, clusters.always))

    def step_name(self, cache: "Cache", layer: int) -> Hashable | None:
        """The numbers of clusters, and whether the new token begins one."""
        tokens = cache.layers[layer].tokens + 1
        clusters = self._clusters(tokens)
        return (clusters.n_fine, self._chosen(clusters), tokens % self.cluster_size == 1 % self.cluster_size)

    def layer_kind(self, layer: int, n_layers: int) -> Hashable:  # noqa: ARG002
        """Whether the layer selects."""
        return layer >= self.dense_layers

    def after_attention(self, engine: "Engine", cache: "Cache", layer: int, weights: Any) -> Program[None]:  # noqa: ARG002
        """Updates the last cluster's bounds with the new key; only complete clusters compete."""
        if layer >= self.dense_layers:
            yield from staged(engine.meter, "similarity", update_bounds(engine, cache.layers[layer], self._levels()))

    def pass_key(self, tokens: int, generated: int) -> Hashable:  # noqa: ARG002
        """The number of clusters: the last one grows by the tokens of a pass, and does not compete."""
        return self._clusters(tokens).n_fine

    def _clusters(self, tokens: int) -> Clustering:
        return Clustering(tokens, self.cluster_size, self.cluster_size)

    def _chosen(self, clusters: Clustering) -> int:
        return min(int(clusters.n_fine * self.select), len(clusters.fine_candidates))

    def _levels(self) -> Levels:
        return {"cluster": self.cluster_size}
