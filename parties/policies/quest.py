# ruff: noqa: ARG002 - hooks have their arguments, needed or not
"""Quest (arXiv 2406.10774, ICML 2024): pages whose keys could match the query best."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from parties.decoding.clusters import Selection
from parties.decoding.program import Program, staged
from parties.policies.base import Policy, kept_share
from parties.policies.checks import share, whole
from parties.policies.clusters import select
from parties.policies.page_bounds import Levels, box_all, grow, upper_bounds

if TYPE_CHECKING:
    from parties.decoding.cache import Cache
    from parties.engines.base import Engine


@dataclass(frozen=True)
class Quest(Policy):
    """Keeps every token; each query head attends to the pages with the largest upper bound of a score.

    The bound is the paper's, sum over coordinates of max(q_i min_i, q_i max_i), computed exactly by an identity that
    compares each coordinate of the query with zero instead of each page's products with each other. The newest page
    always takes part.

    Attributes:
        compression_ratio: share of the cached tokens that a step does not attend to, in [0, 1), to whole pages.
        page_size: tokens of a page.
        dense_layers: first layers that attend to everything.
    """

    name: ClassVar[str] = "quest"
    keeps: ClassVar[str] = "every token; a step attends, by query head, to the newest page and the most promising ones"
    prefill_cost: ClassVar[str] = "2 G d n comparisons for the boxes"
    step_cost: ClassVar[str] = (
        "H d signs of the query and 2 G d comparisons to grow boxes; by query head a ranking of the pages; fetching "
        "the chosen pages' rows, or in `fss` their scores"
    )
    source: ClassVar[str] = (
        "Tang et al., arXiv 2406.10774; first two layers dense and page size 16 as in mit-han-lab/Quest, whose budget "
        "is a number of tokens instead of a share"
    )

    compression_ratio: float = 0.5
    page_size: int = 16
    dense_layers: int = 2

    def __post_init__(self) -> None:
        """Checks the ranges.

        Raises:
            ValueError: names the parameter, its value and what is allowed.
        """
        share("compression_ratio", self.compression_ratio, one=False)
        whole("page_size", self.page_size, 1)
        whole("dense_layers", self.dense_layers, 0)

    def _pages(self, tokens: int) -> tuple[int, int]:
        """Pages that compete, all but the newest, and how many of them win."""
        rivals = -(-tokens // self.page_size) - 1
        return rivals, min(rivals, -(-kept_share(tokens, self.compression_ratio) // self.page_size) - 1)

    def attended(self, tokens: int) -> int:
        """The newest page and the chosen ones; first layers aside."""
        rivals, count = self._pages(tokens)
        return tokens - (rivals - count) * self.page_size

    def after_prefill(self, engine: "Engine", cache: "Cache", layer: int, q: Any) -> Program[None]:
        """Boxes the prompt's keys."""
        if layer >= self.dense_layers:
            yield from staged(engine.meter, "similarity", box_all(engine, cache.layers[layer], self._levels()))

    def before_attention(self, engine: "Engine", cache: "Cache", layer: int, q: Any) -> Program[Selection | None]:
        """Chooses pages by their bounds."""
        if layer < self.dense_layers:
            return None
        here = cache.layers[layer]
        rivals, count = self._pages(here.tokens)
        bounds = None
        if count:
            bounds = yield from staged(engine.meter, "similarity", upper_bounds(engine, here, "page", range(rivals), q))
        newest = (rivals * self.page_size, here.tokens)
        return (yield from select(engine, bounds, count, 0, self.page_size, (newest,)))

    def after_attention(self, engine: "Engine", cache: "Cache", layer: int, weights: Any) -> Program[None]:
        """Takes the new key into its box; what competes is complete before."""
        if layer >= self.dense_layers:
            yield from staged(engine.meter, "similarity", grow(engine, cache.layers[layer], self._levels()))

    def _levels(self) -> Levels:
        return {"page": self.page_size}
