"""A token's step of greedy decoding, as segments that run, are recorded, and are repeated on their own."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from parties.decoding.batch import Caches
from parties.decoding.cache import Cache
from parties.decoding.decoder import Decoder
from parties.decoding.program import Program, run, staged

Step = tuple[Any, list[int] | None]
"""Logits of a token of each sequence, [sequences, vocab], and, at the client, the next tokens."""

Chosen = tuple[Any, Any]
"""Logits, [sequences, vocab], and indices of the largest, not opened yet; None if the logits are opened."""


@dataclass(frozen=True)
class NamedSegment:
    """A part of a token's step that is run, and run again, on its own.

    Attributes:
        program: Makes the program.
        name: See `Engine.run_segment`; called when everything before the segment has run.
    """

    program: Callable[[], Program[Any]]
    name: Callable[[], Hashable]

    def __call__(self) -> Program[Any]:
        """Makes the program."""
        return self.program()


def name_of(segment: Callable[[], Program[Any]]) -> Hashable:
    """Returns the name of a segment that may be recorded, or None; see `Engine.run_segment`."""
    return segment.name() if isinstance(segment, NamedSegment) else None


def fold(decoder: Decoder, caches: Caches) -> None:
    """What follows the prompts of a batch: sequences of equal shapes become one cache, if the policy folds. Local."""
    if not isinstance(caches, Cache) and len(caches.sequences) > 1 and decoder.policy.folds:
        caches.fold(decoder.engine)


def token_segments(decoder: Decoder, caches: Caches, tokens: Sequence[int] | None, argmax: str) -> list[NamedSegment]:
    """One step of greedy decoding as programs, in order: embedding, layers, choice. The last one returns `Chosen`.

    Each leaves its result to the next in the cache, so each can be repeated on its own.

    Args:
        decoder: The model.
        caches: Each grows by its token.
        tokens: The token to decode of each sequence, at their owner; None elsewhere. They are put into the cache.
        argmax: `private`, or `client` if the logits are opened to the client.
    """
    caches.token[:] = tokens or ()
    layers = range(decoder.spec.n_layers)
    return [
        NamedSegment(partial(_enter, decoder, caches), lambda: "embed"),
        *(NamedSegment(partial(decoder.step_layer, caches, n), partial(decoder.step_name, caches, n)) for n in layers),
        NamedSegment(partial(_choose, decoder, caches, argmax), lambda: "choose"),
    ]


def decode_token(decoder: Decoder, caches: Caches, tokens: Sequence[int] | None, argmax: str) -> Program[Step]:
    """All of `token_segments` as one program, and the opening of the tokens."""
    chosen: Any = None
    for segment in token_segments(decoder, caches, tokens, argmax):
        chosen = yield from segment()
    return (yield from open_token(decoder, chosen))


def decode_in_segments(decoder: Decoder, caches: Caches, tokens: Sequence[int] | None, argmax: str) -> Step:
    """Runs `token_segments` one by one, so that an engine repeats no more than a segment."""
    engine, chosen = decoder.engine, None
    for segment in token_segments(decoder, caches, tokens, argmax):
        chosen = engine.run_segment(segment, caches, name_of(segment))
    assert chosen is not None  # noqa: S101 - the last segment returns it
    return run(open_token(decoder, chosen), engine.exchange)


def open_token(decoder: Decoder, chosen: Chosen) -> Program[Step]:
    """Opens what the last segment has chosen to the client: one message, after everything that can be repeated."""
    engine, (logits, index) = decoder.engine, chosen
    if index is not None:
        with engine.meter.stage("argmax"):
            return logits, engine.open_index(index)
    opened = yield from staged(engine.meter, "argmax", engine.reveal(logits))
    return logits, None if opened is None else opened.argmax(1).tolist()


def _enter(decoder: Decoder, caches: Caches) -> Program[None]:
    caches.layers[0].rows = (decoder.layers.rows((yield from decoder.embed_next(caches.token or None, caches))),)


def _choose(decoder: Decoder, caches: Caches, argmax: str) -> Program[Chosen]:
    caches.position += 1
    return (yield from choose(decoder, caches, argmax))


def choose(decoder: Decoder, caches: Caches, argmax: str) -> Program[Chosen]:
    """The greedy choice after each row of the output of the last layer."""
    engine, logits = decoder.engine, (yield from decoder.last_logits(caches))
    if argmax == "client":
        return logits, None
    return logits, (yield from staged(engine.meter, "argmax", engine.argmax(logits)))
