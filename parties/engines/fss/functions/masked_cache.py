"""Caches under masks that stay: each value is opened once, however many tokens are decoded with it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

from parties.decoding.batch import Caches
from parties.decoding.program import Program, parallel
from parties.engines.fss import bounds
from parties.engines.fss.arithmetic import gates

OPENED_AT_ONCE = 1 << 23
"""Elements of a cache per segment: 64 MB in each of the buffers of a round."""

Place = tuple[int, str]
"""A layer, and the name of what it holds."""


def segments(caches: Caches) -> list[Callable[[], Program[None]]]:
    """Segments that open caches of additive shares under fresh masks, in place. 1 round each.

    The shares of a segment are freed when it ends, so that they and the masked values are never in memory at once.
    """
    sizes = {
        (index, name): value.shape.numel()
        for index, layer in enumerate(caches.layers)
        for name, value in layer.values().items()
    }
    return [partial(_mask, caches, places) for places in _parts(sizes)]


def _mask(caches: Caches, places: Sequence[Place]) -> Program[None]:
    layers = caches.layers
    values = [layers[index].values()[name] for index, name in places]
    opened = yield from parallel(*(gates.open_(value.bounded(bounds.STATE_LIMIT)) for value in values))
    for (index, name), value in zip(places, opened, strict=True):
        layers[index].put(name, value.bounded(value.source.bounds["qkv"].limit))


def _parts(sizes: Mapping[Place, int]) -> Iterator[list[Place]]:
    """Splits places, in order, into parts of at most `OPENED_AT_ONCE` elements, or of a single place."""
    part: list[Place] = []
    for place, size in sizes.items():
        if part and sum(sizes[other] for other in part) + size > OPENED_AT_ONCE:
            yield part
            part = []
        part.append(place)
    yield part
