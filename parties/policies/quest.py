# ruff: noqa: ARG002 - hooks have their arguments, needed or not
"""Quest (arXiv 2406.10774, ICML 2024): attends to the pages with the largest upper bounds of a score."""

from collections.abc import Hashable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

from parties.decoding.clusters import Selection
from parties.decoding.program import Program, staged
from parties.policies.base import LATER, Policy, kept_share
from parties.policies.checks import one_of, share, whole
from parties.policies.clusters import USES, Use, select
from parties.policies.page_bounds import Levels, compute_bounds, update_bounds, upper_bounds

if TYPE_CHECKING:
    from parties.decoding.cache import Cache, LayerCache
    from parties.engines.base import Engine


@dataclass(frozen=True)
class Quest(Policy):
    """Keeps every token; each query head attends to the pages with the largest upper bound of a score.

    The bound is the paper's, the sum over coordinates of max(q_i min_i, q_i max_i), computed exactly by an identity
    that compares each coordinate of the query with zero instead of two products per page. The newest page is always
    attended to.

    Attributes:
        compression_ratio: Share of the cached tokens that a step does not attend to, in [0, 1), in whole pages.
        page_size: Number of tokens in a page.
        dense_layers: Number of first layers that attend to every token.
        ahead: Selects one layer early, in parallel with the layer before, by a query guessed from that layer's input;
            the first layer then attends to every token. Not in the paper.
        use: How `fss` attends to selected pages; see `mpcache`.
    """

    name: ClassVar[str] = "quest"
    keeps: ClassVar[str] = "every token; a step attends, by query head, to the newest page and the most promising ones"
    prefill_cost: ClassVar[str] = "2 G d n comparisons for the page bounds"
    step_cost: ClassVar[str] = (
        "H d signs of the query and 2 G d comparisons to update page bounds; by query head a ranking of the pages; "
        "fetching the selected pages' rows, or in `fss` their scores"
    )
    source: ClassVar[str] = (
        "Tang et al., arXiv 2406.10774; first two layers dense and page size 16 as in mit-han-lab/Quest, whose budget "
        "is a number of tokens instead of a share"
    )
    by_head: ClassVar[bool] = True

    compression_ratio: float = 0.5
    page_size: int = 16
    dense_layers: int = 2
    ahead: bool = field(default=False, metadata=LATER)
    use: Use = field(default="scores", metadata=LATER)

    def __post_init__(self) -> None:
        """Checks the ranges.

        Raises:
            ValueError: A parameter is outside its range; the message names it, its value and the allowed values.
        """
        share("compression_ratio", self.compression_ratio, one=False)
        whole("page_size", self.page_size, 1)
        whole("dense_layers", self.dense_layers, 0)
        one_of("ahead", self.ahead, (False, True))
        one_of("use", self.use, USES)

    def _pages(self, tokens: int) -> tuple[int, int]:
        """Returns the number of candidate pages, all but the newest, and how many of them to select."""
        candidates = -(-tokens // self.page_size) - 1
        return candidates, min(candidates, -(-kept_share(tokens, self.compression_ratio) // self.page_size) - 1)

    def attended(self, tokens: int) -> int:
        """Tokens of the newest page and the selected ones; for the layers that are not dense."""
        candidates, count = self._pages(tokens)
        return tokens - (candidates - count) * self.page_size

    def selected(self, tokens: int) -> int:
        """Tokens of the selected pages."""
        return self._pages(tokens)[1] * self.page_size

    def after_prefill(self, engine: "Engine", cache: "Cache", layer: int, q: Any) -> Program[None]:
        """Computes the bounds of the prompt's pages."""
        if self._selects(layer):
            yield from staged(engine.meter, "similarity", compute_bounds(engine, cache.layers[layer], self._levels()))

    def before_attention(self, engine: "Engine", cache: "Cache", layer: int, q: Any) -> Program[Selection | None]:
        """Selects pages by their bounds, or returns the selection made ahead."""
        here = cache.layers[layer]
        if self.ahead or not self._selects(layer):
            return here.selection and replace(here.selection, always=(self._newest(here.tokens),))
        return (yield from self._choose(engine, here, here.tokens, q))

    def needs_query(self, layer: int) -> bool:
        """Only a layer that selects, and not ahead."""
        return self._selects(layer) and not self.ahead

    def known_selection(self, cache: "Cache", layer: int) -> Selection | None:
        """The selection made ahead; None for a dense layer."""
        here = cache.layers[layer]
        return here.selection and replace(here.selection, always=(self._newest(here.tokens + 1),))

    def pass_key(self, tokens: int, generated: int) -> Hashable | None:
        """The numbers of candidates and of selected pages: the newest page, which does not compete, grows in a pass."""
        return self._pages(tokens) if self.use == "scores" else None

    def selects_ahead(self, layer: int) -> bool:
        """For each layer that is not dense, but the first."""
        return self.ahead and self._selects(layer)

    def select_ahead(self, engine: "Engine", cache: "Cache", layer: int, q: Any) -> Program[None]:
        """Selects among the complete pages: the newest, which the new token joins, does not compete."""
        here = cache.layers[layer]
        here.selection = yield from self._choose(engine, here, here.tokens + 1, q)

    def _choose(self, engine: "Engine", here: "LayerCache", tokens: int, q: Any) -> Program[Selection]:
        """Selects from `tokens` tokens, the new one included."""
        candidates, count = self._pages(tokens)
        bounds = None
        if count:
            bounds = yield from staged(
                engine.meter, "similarity", upper_bounds(engine, here, "page", range(candidates), q)
            )
        always = (self._newest(tokens),)
        program = select(engine, here, bounds, count, 0, self.page_size, always, use=self.use, spare_rounds=self.ahead)
        return (yield from program)

    def _newest(self, tokens: int) -> tuple[int, int]:
        """Returns the span of the newest page."""
        return self._pages(tokens)[0] * self.page_size, tokens

    def step_name(self, cache: "Cache", layer: int) -> Hashable | None:
        """The numbers of pages, and whether the new token begins one."""
        tokens = cache.layers[layer].tokens + 1
        return (self._pages(tokens), tokens % self.page_size == 1 % self.page_size)

    def layer_kind(self, layer: int, n_layers: int) -> Hashable:
        """Whether the layer selects, and whether the next one does ahead."""
        return (self._selects(layer), layer + 1 < n_layers and self.selects_ahead(layer + 1))

    def after_attention(self, engine: "Engine", cache: "Cache", layer: int, weights: Any) -> Program[None]:
        """Updates the newest page's bounds with the new key; only complete pages compete."""
        if self._selects(layer):
            yield from staged(engine.meter, "similarity", update_bounds(engine, cache.layers[layer], self._levels()))

    def _selects(self, layer: int) -> bool:
        return layer >= max(self.dense_layers, int(self.ahead))

    def _levels(self) -> Levels:
        return {"page": self.page_size}
