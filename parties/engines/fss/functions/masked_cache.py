"""Caches under masks that stay: each value is opened once, however many tokens are decoded with it."""

from collections.abc import Iterator, Mapping

from parties.decoding.batch import Caches
from parties.decoding.program import Program, parallel
from parties.engines.fss import bounds
from parties.engines.fss.arithmetic import gates
from parties.engines.fss.arithmetic.values import Additive

OPENED_AT_ONCE = 1 << 27
"""Elements of a cache per round: a gigabyte, where a frame of a link holds at most four."""


Place = tuple[int, str]
"""A layer, and the name of what it holds."""


def mask(caches: Caches) -> Program[None]:
    """Opens caches of additive shares under fresh masks, in place. 1 round per `OPENED_AT_ONCE` elements."""
    layers = caches.layers
    values: dict[Place, Additive] = {
        (index, name): value for index, layer in enumerate(layers) for name, value in layer.values().items()
    }
    for places in _parts({place: value.shape.numel() for place, value in values.items()}):
        opened = yield from parallel(*(gates.open_(values[place].bounded(bounds.STATE_LIMIT)) for place in places))
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
    if part:
        yield part
