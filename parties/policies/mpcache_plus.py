"""MPCache with what we found to be better at the same share of attended tokens."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from parties.decoding.clusters import Clustering, Selection
from parties.decoding.program import Program, staged
from parties.policies.base import Policy
from parties.policies.checks import share, whole
from parties.policies.clusters import select
from parties.policies.page_bounds import Levels, box_all, grow, upper_bounds
from parties.policies.snapkv import SnapKV

if TYPE_CHECKING:
    from parties.decoding.cache import Cache
    from parties.engines.base import Engine


@dataclass(frozen=True)
class MPCachePlus(Policy):
    """Evicts once by key head as SnapKV does, then selects clusters at each step by their exact bounds.

    Attributes:
        static_keep: share of the prompt's tokens that stays after prefill, in (0, 1].
        select: share of all clusters chosen at each step, in [0, 1]; the first and the last one come on top.
        cluster_size: tokens in a cluster.
        window_size: last tokens of the prompt, whose queries rate the others and which always stay.
        kernel_size: tokens that ratings are averaged over, odd.
        dense_layers: first layers that attend to all tokens that stayed.
    """

    name: ClassVar[str] = "mpcache+"
    keeps: ClassVar[str] = (
        "as `snapkv` after the prompt; a step attends, by query head, to the first cluster, the last one and the most "
        "promising ones"
    )
    prefill_cost: ClassVar[str] = (
        "H w n exponentials for a window of w; one selection of B among n by key head, which moves 2 G n rows; 2 G d B "
        "comparisons for the boxes"
    )
    step_cost: ClassVar[str] = (
        "H d signs of the query and 2 G d comparisons to grow boxes; by query head one ranking of T/16 clusters; "
        "fetching the chosen clusters' rows, or in `fss` their scores"
    )
    source: ClassVar[str] = "ours, after MPCache (arXiv 2501.06807), SnapKV (2404.14469) and Quest (2406.10774)"

    experimental: ClassVar[str] = (
        "it costs 1.6 to 2.8 times the seconds of `mpcache` on `lan`, and all but one of its gains in quality are "
        "within two standard errors (docs/design/0014-policies-on-text.md)"
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
            ValueError: names the parameter, its value and what is allowed.
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
        """The first and the last cluster, and the chosen ones."""
        clusters = self._clusters(tokens)
        return sum(stop - start for start, stop in clusters.always) + self._chosen(clusters) * self.cluster_size

    def after_prefill(self, engine: "Engine", cache: "Cache", layer: int, q: Any) -> Program[None]:
        """Keeps what the end of the prompt looks at, and boxes it."""
        yield from self._static.after_prefill(engine, cache, layer, q)
        if layer >= self.dense_layers:
            yield from staged(engine.meter, "similarity", box_all(engine, cache.layers[layer], self._levels()))

    def before_attention(self, engine: "Engine", cache: "Cache", layer: int, q: Any) -> Program[Selection | None]:
        """Chooses clusters by their bounds."""
        if layer < self.dense_layers:
            return None
        here = cache.layers[layer]
        clusters = self._clusters(here.tokens)
        rivals, count, bounds = clusters.fine_rivals, self._chosen(clusters), None
        if count:
            bounds = yield from staged(engine.meter, "similarity", upper_bounds(engine, here, "cluster", rivals, q))
        first = rivals.start * self.cluster_size
        return (yield from select(engine, bounds, count, first, self.cluster_size, clusters.always))

    def after_attention(self, engine: "Engine", cache: "Cache", layer: int, weights: Any) -> Program[None]:  # noqa: ARG002
        """Takes the new key into its box; what competes is complete before."""
        if layer >= self.dense_layers:
            yield from staged(engine.meter, "similarity", grow(engine, cache.layers[layer], self._levels()))

    def _clusters(self, tokens: int) -> Clustering:
        return Clustering(tokens, self.cluster_size, self.cluster_size)

    def _chosen(self, clusters: Clustering) -> int:
        return min(int(clusters.n_fine * self.select), len(clusters.fine_rivals))

    def _levels(self) -> Levels:
        return {"cluster": self.cluster_size}
