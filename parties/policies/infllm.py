"""InfLLM (arXiv 2402.04617, NeurIPS 2024): blocks of the past, each represented by a few of its tokens."""

from collections.abc import Hashable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from parties.decoding.clusters import Selection
from parties.decoding.program import Program, staged
from parties.policies.base import LATER, Policy, kept_share
from parties.policies.checks import OutOfRange, one_of, share, whole
from parties.policies.clusters import USES, Use, best_of, select

if TYPE_CHECKING:
    from parties.decoding.cache import Cache, LayerCache
    from parties.engines.base import Engine


@dataclass(frozen=True)
class InfLLM(Policy):
    """Keeps every token; a step attends to the first tokens, the last ones and the blocks that match its query.

    A token's representative score is the mean of q . k over the `n_local` queries after it, summed over a group's
    heads; the `repr_topk` highest of a block represent it, and the block's relevance is the mean of q . k over them.
    That mean is q . (mean of their keys), so a block is one key. Tokens form a block once `n_local` tokens follow its
    last one, also while decoding.

    Attributes:
        compression_ratio: Share of the cached tokens that a step does not attend to, in [0, 1), in whole blocks; the
            first and the local tokens are always attended to.
        n_init: Number of first tokens, always attended to.
        n_local: Least number of last tokens, always attended to.
        block_size: Number of tokens in a block.
        repr_topk: Number of tokens that represent a block.
        ahead: Selects one layer early, in parallel with the layer before, by a query guessed from that layer's input;
            the first layer then attends to every token, and a block competes one token later. Not in the paper.
        use: How `fss` attends to selected blocks; see `mpcache`.
    """

    name: ClassVar[str] = "infllm"
    keeps: ClassVar[str] = (
        "every token; a step attends, by query head, to the first tokens, the last ones and the blocks whose "
        "representatives match its query"
    )
    prefill_cost: ClassVar[str] = "G n products of rows; G n / block_size rankings of block_size tokens, fetching rows"
    step_cost: ClassVar[str] = (
        "by query head a ranking of the blocks; fetching the chosen blocks' rows, or in `fss` their scores; every "
        "block_size steps G rankings of block_size tokens"
    )
    source: ClassVar[str] = (
        "Xiao et al., arXiv 2402.04617; thunlp/InfLLM has n_init 128, n_local 4096, block_size 128, repr_topk 4 and 16 "
        "blocks, for prompts of 100,000 tokens: defaults here are scaled to a few thousand"
    )
    by_head: ClassVar[bool] = True

    compression_ratio: float = 0.5
    n_init: int = 16
    n_local: int = 64
    block_size: int = 32
    repr_topk: int = 4
    ahead: bool = field(default=False, metadata=LATER)
    use: Use = field(default="scores", metadata=LATER)

    def __post_init__(self) -> None:
        """Checks the ranges.

        Raises:
            ValueError: A parameter is outside its range; the message names it, its value and the allowed values.
        """
        share("compression_ratio", self.compression_ratio, one=False)
        for name, least in (("n_init", 0), ("n_local", 1), ("block_size", 1), ("repr_topk", 1)):
            whole(name, getattr(self, name), least)
        one_of("ahead", self.ahead, (False, True))
        one_of("use", self.use, USES)
        if self.repr_topk > self.block_size:
            raise OutOfRange("repr_topk", self.repr_topk, f"at most a block's {self.block_size} tokens")

    def _complete(self, tokens: int) -> int:
        """Number of blocks that a cache of `tokens` tokens completes."""
        return max(0, tokens - self.n_init - self.n_local) // self.block_size

    def _blocks(self, tokens: int) -> int:
        """Number of blocks that compete in a step with `tokens` tokens, the new one included."""
        return self._complete(tokens - self.ahead)

    def _chosen(self, tokens: int) -> int:
        blocks = self._blocks(tokens)
        always = tokens - blocks * self.block_size
        return min(blocks, max(0, kept_share(tokens, self.compression_ratio) - always) // self.block_size)

    def selected(self, tokens: int) -> int:
        """Tokens of the selected blocks."""
        return self._chosen(tokens) * self.block_size

    def attended(self, tokens: int) -> int:
        """First, local and selected tokens; with `ahead` for all layers but the first."""
        return tokens - (self._blocks(tokens) - self._chosen(tokens)) * self.block_size

    def after_chunk(self, engine: "Engine", cache: "Cache", layer: int, position: int) -> Program[None]:
        """Stores the chunk's queries, in the segment that opens them, since it truncates them."""
        here = cache.layers[layer]
        q = here.queries[-1]
        if self._selects(layer):
            self._remember(engine, here, q, position - q.shape[1])
        return
        yield

    def after_prefill(self, engine: "Engine", cache: "Cache", layer: int, q: Any) -> Program[None]:  # noqa: ARG002
        """Forms the prompt's blocks."""
        if self._selects(layer):
            yield from staged(engine.meter, "similarity", self._form(engine, cache.layers[layer], 0))

    def before_attention(self, engine: "Engine", cache: "Cache", layer: int, q: Any) -> Program[Selection | None]:
        """Forms a block if one is complete, and selects among all blocks by the query; or uses what is made ahead."""
        here = cache.layers[layer]
        if self._selects(layer):
            self._remember(engine, here, q, here.tokens - 1, has_place=True)
        if self.ahead:
            return here.selection and replace(here.selection, always=self._always(here.tokens))
        yield from self._form_newest(engine, here)
        return (yield from self._choose(engine, here, here.tokens, q))

    def selects_ahead(self, layer: int) -> bool:
        """For each layer but the first."""
        return self.ahead and self._selects(layer)

    def select_ahead(self, engine: "Engine", cache: "Cache", layer: int, q: Any) -> Program[None]:
        """Selects among the blocks that are complete without the new token."""
        here = cache.layers[layer]
        here.selection = yield from self._choose(engine, here, here.tokens + 1, q)

    def after_attention(self, engine: "Engine", cache: "Cache", layer: int, weights: Any) -> Program[None]:  # noqa: ARG002
        """Forms a block if one is complete, for the next step."""
        if self.selects_ahead(layer):
            yield from self._form_newest(engine, cache.layers[layer])

    def _selects(self, layer: int) -> bool:
        return layer >= int(self.ahead)

    def _form_newest(self, engine: "Engine", here: "LayerCache") -> Program[None]:
        yield from staged(engine.meter, "similarity", self._form(engine, here, self._complete(here.tokens - 1)))

    def _choose(self, engine: "Engine", here: "LayerCache", tokens: int, q: Any) -> Program[Selection]:
        """Selects from `tokens` tokens, the new one included."""
        count, relevance = self._chosen(tokens), None
        if count:
            keys = here.state["representatives"]
            relevance = (yield from staged(engine.meter, "similarity", engine.scores(q, keys)))[:, 0]
        first, always = min(self.n_init, tokens), self._always(tokens)
        program = select(
            engine, here, relevance, count, first, self.block_size, always, use=self.use, spare_rounds=self.ahead
        )
        return (yield from program)

    def _always(self, tokens: int) -> tuple[tuple[int, int], ...]:
        """Returns the spans of the first and of the local tokens."""
        spans = (0, min(self.n_init, tokens)), (self.n_init + self._blocks(tokens) * self.block_size, tokens)
        return tuple(span for span in spans if span[0] < span[1])

    def begin_tokens(self, count: int) -> dict[str, torch.Tensor]:
        """Queries that are not known yet."""
        return {"queries": torch.zeros(count)}

    def step_name(self, cache: "Cache", layer: int) -> Hashable | None:
        """The numbers of blocks, in steps that form none."""
        tokens = cache.layers[layer].tokens + 1
        if self._complete(tokens) > self._complete(tokens - 1) or tokens <= self.n_init:
            return None
        return (self._blocks(tokens), self._chosen(tokens))

    def layer_kind(self, layer: int, n_layers: int) -> Hashable:
        """Whether the layer selects, and whether the next one does ahead."""
        return (self._selects(layer), layer + 1 < n_layers and self.selects_ahead(layer + 1))

    def _remember(
        self, engine: "Engine", here: "LayerCache", q: Any, position: int, *, has_place: bool = False
    ) -> None:
        """Stores the queries [heads, n, d] from `position` on, except those of the first `n_init` tokens.

        They are summed over the heads of a group and divided by `n_local`. While tokens are decoded, the state has a
        place for the query already.
        """
        q = q[:, max(0, self.n_init - position) :]
        (heads, n, d), kv_heads = q.shape, here.k.shape[0]
        if n:
            summed = q.reshape(kv_heads, heads // kv_heads, n, d).sum(1) * (1 / self.n_local)
            query, known = engine.to_cache(summed), here.state.get("queries")
            if known is not None and has_place:
                query = engine.written(known, query, known.shape[1] - here.room - 1)
            elif known is not None:
                query = engine.cat([known, query], dim=1)
            elif here.room:
                query = engine.lengthened(query, here.room)
            here.state["queries"] = query

    def _form(self, engine: "Engine", here: "LayerCache", formed: int) -> Program[None]:
        """Computes the representatives of the blocks after the first `formed` ones, and drops their queries."""
        new = self._complete(here.tokens) - formed
        if not new:
            return
        (kv_heads, _, d), size = here.k.shape, self.block_size
        start, length = self.n_init + formed * size, new * size
        keys, queries = here.k[:, start : start + length], here.state["queries"]
        after = queries[:, 1 : 1 + length]
        for shift in range(2, self.n_local + 1):
            after = after + queries[:, shift : shift + length]
        matched = yield from engine.matmul(
            keys.reshape(kv_heads * length, 1, d), after.reshape(kv_heads * length, d, 1)
        )
        best = yield from best_of(engine, matched.reshape(kv_heads * new, size), self.repr_topk)
        chosen = yield from engine.pick(best, keys.reshape(kv_heads * new, size, d))
        found = engine.to_cache(chosen.sum(1) * (1 / self.repr_topk)).reshape(kv_heads, new, d)
        known = here.state.get("representatives")
        here.state["representatives"] = found if known is None else engine.cat([known, found], dim=1)
        here.state["queries"] = queries[:, length:]
