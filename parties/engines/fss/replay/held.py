"""What the layers of a cache hold, as a recording reads it: copies in fixed places, and blocks that it writes."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch

from parties.decoding.batch import Caches
from parties.decoding.cache import Block, LayerCache
from parties.engines.fss.arithmetic.values import Masked, Number
from parties.engines.fss.recording.tracer import NotRecordable
from parties.engines.fss.replay.inputs import Inputs
from parties.engines.fss.replay.values import mapped, over, tensors_of

Key = tuple[int, str]
"""A layer, and the name of what it holds."""
TOKEN = ("rows", "selection", "weights", "state", "alive")
"""What the segment of a token may read and leave besides blocks."""
CHUNK = ("rows", "queries", "k", "v", "newest", "state", "alive")
"""The same for a chunk of a prompt, which has no blocks."""


class Replaced(NotRecordable):
    """The segment leaves other keys and values than those of the block that it reads."""


def epoch_of(value: Number) -> int:
    """Returns the epoch of the masks of a value."""
    return value.epoch if type(value) is Masked else Masked.CONSTANT


def held(cache: Caches, names: Sequence[str]) -> dict[Key, Any]:
    """Returns what the layers hold under these names."""
    return {(index, name): getattr(layer, name) for index, layer in enumerate(cache.layers) for name in names}


def own_inputs(cache: Caches, names: Sequence[str], inputs: Inputs) -> dict[Key, Any]:
    """Replaces what the layers hold by copies, which the tapes then read; values that are one object stay one.

    Rows, which only the next segment reads, need no copy where they stay at their place.
    """
    copies: dict[int, Number] = {}

    def copied(value: Number, *, lasting: bool) -> Number:
        if id(value) not in copies:
            tensors = [
                tensor if lasting and inputs.lasts(tensor) else tensor.clone(memory_format=torch.contiguous_format)
                for tensor in tensors_of(value)
            ]
            copies[id(value)] = over(value, tensors, epoch_of(value))
        return copies[id(value)]

    static = {
        (layer, name): mapped(tree, partial(copied, lasting=name == "rows"))
        for (layer, name), tree in held(cache, names).items()
    }
    for (index, name), tree in static.items():
        setattr(cache.layers[index], name, tree)
    return static | {key: dict(tree) for key, tree in static.items() if isinstance(tree, dict)}


def written(cache: Caches, index: int, blocks: Mapping[int, Block]) -> Block:
    """Returns the block of a layer that has grown, if it was written in place."""
    before, after = blocks.get(index), cache.layers[index].spare()
    if before is None or after is None or after.k.public is not before.k.public or after.v.mask is not before.v.mask:
        raise Replaced("a segment", "the keys and values of a layer were replaced")
    return after


def own_blocks(cache: Caches) -> None:
    """Replaces the blocks of the layers by copies, which the tapes then read and write."""
    for layer in cache.layers:
        if (block := layer.spare()) is not None:
            k, v = (over(rows, [t.clone() for t in tensors_of(rows)], rows.epoch) for rows in (block.k, block.v))
            layer.show(Block(k, v), layer.tokens)


def was_replaced(layer: LayerCache, shown: tuple[Any, Any]) -> bool:
    """Tells whether a layer shows other keys or values than these."""
    return layer.k is not shown[0] or layer.v is not shown[1]


def is_same(one: Any, other: Any) -> bool:
    """Tells whether two trees are one object, or dictionaries of the same objects."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(one[name] is other[name] for name in one)
    return one is other
