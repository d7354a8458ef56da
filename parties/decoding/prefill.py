"""Prefill inside the secure computation: the prompt in pieces, one after the other, so that memory is bounded."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from parties.decoding.cache import Cache
from parties.decoding.program import Program
from parties.metering.meter import StageReading

if TYPE_CHECKING:
    from parties.decoding.decoder import Decoder

CHUNK_BYTES = 1 << 28
"""Memory that a party may take for the numbers of one chunk in one step of a layer."""

Piece = Callable[[], Program[None]]


@dataclass(frozen=True)
class Prefill:
    """A prompt that client and server run themselves, by its public sizes.

    Each layer takes the prompt chunk by chunk: queries of a chunk attend to the tokens up to the chunk's last. A
    smaller chunk needs less memory and more rounds; the result is the same but for rounding.

    Attributes:
        tokens: tokens of the prompt.
        chunk: tokens of a chunk; the last chunk may have fewer.
    """

    tokens: int
    chunk: int

    @classmethod
    def of(cls, decoder: "Decoder", tokens: int) -> Self:
        """Chunks as the policy cuts them, or as large as memory allows.

        The widest step of a layer has `intermediate` or heads x tokens numbers for each token of a chunk.
        """
        spec = decoder.spec
        if decoder.policy.chunk is not None:
            return cls(tokens, min(tokens, decoder.policy.chunk))
        row = max(spec.intermediate, spec.n_heads * tokens) * decoder.engine.number_bytes
        return cls(tokens, max(1, min(tokens, CHUNK_BYTES // row)))

    def pieces(self, decoder: "Decoder", cache: Cache, prompt: Sequence[int] | None) -> list[Piece]:
        """The prefill of an empty cache as programs, in order: what one leaves to the next is in the cache.

        Args:
            decoder: the model.
            cache: filled in place.
            prompt: the tokens, at their owner; None elsewhere.
        """
        starts = range(0, self.tokens, self.chunk)
        todo: list[Piece] = [partial(self._embed, decoder, cache, start, prompt) for start in starts]
        for layer in range(decoder.spec.n_layers):
            todo += [partial(decoder.advance, cache, layer, index) for index in range(len(starts))]
            todo.append(partial(decoder.settle, cache, layer))
        return todo

    def _embed(self, decoder: "Decoder", cache: Cache, start: int, prompt: Sequence[int] | None) -> Program[Any]:
        count = min(self.chunk, self.tokens - start)
        own = None if prompt is None else prompt[start : start + count]
        rows = yield from decoder.embed(own, count, start)
        cache.layers[0].rows += (decoder.rows(rows),)


def protocol(stages: Sequence[StageReading]) -> tuple[StageReading, ...]:
    """The readings that belong to the protocol: phases `online` and `offline`."""
    return tuple(stage for stage in stages if stage.phase in ("online", "offline"))
