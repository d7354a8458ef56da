"""Prefill inside the secure computation: the prompt in segments, one after the other, so that memory is bounded."""

from collections.abc import Callable, Sequence
from functools import partial

from parties.decoding.batch import Caches
from parties.decoding.cache import Cache
from parties.decoding.decoder import Decoder
from parties.decoding.program import Program
from parties.decoding.steps import NamedSegment
from parties.decoding.workload import CHUNK_BYTES, Prefill
from parties.metering.readings import StageReading


def chunked(decoder: Decoder, tokens: int) -> Prefill:
    """A prompt of `tokens` in chunks as the policy cuts them, or as large as memory allows.

    The widest step of a layer has `intermediate` or heads x tokens numbers for each token of a chunk.
    """
    spec = decoder.spec
    if decoder.policy.chunk is not None:
        return Prefill(tokens, min(tokens, decoder.policy.chunk))
    row = max(spec.intermediate, spec.n_heads * tokens) * decoder.engine.number_bytes
    return Prefill(tokens, max(1, min(tokens, CHUNK_BYTES // row)))


def prompt_segments(
    decoder: Decoder, cache: Cache, prompt: Sequence[int] | None, sizes: Prefill
) -> list[Callable[[], Program[None]]]:
    """The prefill of an empty cache as programs, in order; each leaves its result to the next in the cache.

    Args:
        decoder: The model.
        cache: Filled in place.
        prompt: The tokens, at their owner; None elsewhere.
        sizes: Public sizes of the prompt.
    """
    starts = range(0, sizes.tokens, sizes.chunk)
    segments: list[Callable[[], Program[None]]] = []
    for start in starts:
        count = min(sizes.chunk, sizes.tokens - start)
        own = None if prompt is None else prompt[start : start + count]
        segments.append(partial(_embed, decoder, cache, own, count, start))
    for layer in range(decoder.spec.n_layers):
        segments += [
            NamedSegment(
                partial(decoder.advance, cache, layer, index),
                partial(decoder.chunk_name, layer, index, sizes.chunk, sizes.tokens),
            )
            for index in range(len(starts))
        ]
        segments.append(partial(decoder.settle, cache, layer))
    return segments


def prompts_segments(
    decoder: Decoder, caches: Caches, prompts: Sequence[Sequence[int]] | None, sizes: Sequence[Prefill]
) -> list[Callable[[], Program[None]]]:
    """`prompt_segments` of each sequence, one sequence after the other, so that memory is that of one prompt."""
    owned: Sequence[Sequence[int] | None] = [None] * len(sizes) if prompts is None else prompts
    each = zip(caches.sequences, owned, sizes, strict=True)
    return [segment for cache, prompt, size in each for segment in prompt_segments(decoder, cache, prompt, size)]


def _embed(decoder: Decoder, cache: Cache, own: Sequence[int] | None, count: int, start: int) -> Program[None]:
    rows = yield from decoder.embed(own, count, start)
    cache.layers[0].rows += (decoder.layers.rows(rows),)


def protocol(stages: Sequence[StageReading]) -> tuple[StageReading, ...]:
    """The readings that belong to the protocol: phases `online` and `offline`."""
    return tuple(stage for stage in stages if stage.phase in ("online", "offline"))
