"""A cache under masks that stay: each value is opened once, however many tokens are decoded with it."""

from collections.abc import Iterator, Mapping

from parties.decoding.cache import Cache
from parties.decoding.program import Program, parallel
from parties.engines.fss import bounds
from parties.engines.fss.arithmetic import gates
from parties.engines.fss.arithmetic.values import Additive, Masked

OPENED_AT_ONCE = 1 << 27
"""Elements of a cache per round: a gigabyte, where a frame of a link holds at most four."""


def mask(cache: Cache) -> Program[None]:
    """Opens a cache of additive shares under fresh masks, in place. 1 round per `OPENED_AT_ONCE` elements."""
    named: dict[str, Additive] = cache.values()
    masked: dict[str, Masked] = {}
    for names in _batches({name: value.shape.numel() for name, value in named.items()}):
        opened = yield from parallel(*(gates.open_(named[name].bounded(bounds.STATE_LIMIT)) for name in names))
        masked |= {
            name: value.bounded(value.source.bounds["qkv"].limit) for name, value in zip(names, opened, strict=True)
        }
    cache.layers = Cache.from_values(len(cache.layers), cache.position, masked).layers


def _batches(sizes: Mapping[str, int]) -> Iterator[list[str]]:
    """Splits names, in order, into batches of at most `OPENED_AT_ONCE` elements, or of a single name."""
    batch: list[str] = []
    for name, size in sizes.items():
        if batch and sum(sizes[other] for other in batch) + size > OPENED_AT_ONCE:
            yield batch
            batch = []
        batch.append(name)
    if batch:
        yield batch
