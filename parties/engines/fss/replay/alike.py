"""The recording of a layer made from that of a layer alike: the same tapes, over its own weights, cache and rows.

To trace a segment takes much longer than to bind its tapes to memory, and the layers of a model do the same. Of
what a trace depends on, the name of the segment has what is public and differs between layers
(`decoding.layer_names`); the rest is how the cache looks, which is compared.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from parties.decoding.batch import Caches
from parties.decoding.cache import Block, LayerCache
from parties.engines.fss.arithmetic.values import Masked, Number
from parties.engines.fss.randomness.source import Source
from parties.engines.fss.recording.memory import Buffer
from parties.engines.fss.recording.trace import Trace
from parties.engines.fss.replay.held import epoch_of
from parties.engines.fss.replay.inputs import Inputs
from parties.engines.fss.replay.layer_parameters import Weights
from parties.engines.fss.replay.reading import Reading
from parties.engines.fss.replay.segment import RecordedSegment
from parties.engines.fss.replay.values import look, mapped, over, tensors_of, values_in

Path = tuple[Any, ...]
"""What a tensor is, with layers counted from that of the segment."""


@dataclass
class Pattern:
    """A recording from which those of layers alike can be made.

    Attributes:
        segment: The recording.
        layer: Its layer.
        trace: Its tapes.
        own: The tensors on each of the buffers that are other ones in another layer.
        looks: How the layers that it reads or changes look before it, counted from its own.
        first: Of the values in them, in order, the first place of each: some layers hold one object together.
        position: Position of the recorded token.
    """

    segment: RecordedSegment
    layer: int
    trace: Trace
    own: Mapping[Buffer, Mapping[Path, Tensor]]
    looks: Mapping[int, Any]
    first: Sequence[int]
    position: int

    @classmethod
    def of(
        cls, segment: RecordedSegment, layer: int, cache: Caches, inputs: Inputs, weights: Weights
    ) -> "Pattern | None":
        """Returns the pattern of a recording; None if it uses memory of a layer's that another one has no place for.

        What belongs neither to the cache nor to the parameters belongs to all layers: tables, and memory that
        recordings share.

        Args:
            segment: The recording, with its trace.
            layer: Its layer.
            cache: The cache, as it was before the segment.
            inputs: The memory that recordings share.
            weights: The parameters.
        """
        trace = segment.trace
        assert trace is not None  # noqa: S101 - it was just recorded
        own: dict[int, dict[Path, Tensor]] = {}
        for path, tensor in _tensors(layer, cache, inputs, weights).items():
            own.setdefault(_address(tensor), {})[path] = tensor
        held = {_address(t) for here in cache.layers for value in values_in(vars(here)) for t in tensors_of(value)}
        externals = [buffer for buffer in trace.externals if buffer.size]
        if any(buffer.fixed in held and buffer.fixed not in own for buffer in externals):
            return None
        touched = {layer, *(reading.layer for reading in segment.reads), *(index for index, _ in segment.leaves)}
        touched |= {*segment.blocks, *segment.grown}
        looks = {index - layer: _look(cache.layers[index], segment.epoch, inputs) for index in touched}
        moved = {buffer: own[buffer.fixed] for buffer in externals if buffer.fixed in own}
        return cls(segment, layer, trace, moved, looks, _first(cache, layer, looks), cache.position)

    def recording(
        self, layer: int, cache: Caches, source: Source, inputs: Inputs, weights: Weights
    ) -> RecordedSegment | None:
        """Returns the recording of another layer of the kind; None if that looks different."""
        layers = cache.layers
        if cache.position != self.position or not all(0 <= layer + offset < len(layers) for offset in self.looks):
            return None
        if any(_look(layers[layer + offset], source.epoch, inputs) != own for offset, own in self.looks.items()):
            return None
        if _first(cache, layer, self.looks) != self.first:
            return None
        there = _tensors(layer, cache, inputs, weights)
        places = self._places(there)
        return None if places is None else self._over(layer, cache, source, inputs, there, places)

    def _places(self, there: Mapping[Path, Tensor]) -> dict[Buffer, torch.UntypedStorage] | None:
        """The memory of the other layer for each buffer; None if tensors lie differently in it."""
        places: dict[Buffer, torch.UntypedStorage] = {}
        for buffer, tensors in self.own.items():
            if any(path not in there or _layout(there[path]) != _layout(own) for path, own in tensors.items()):
                return None
            if len({_address(there[path]) for path in tensors}) > 1:
                return None
            places[buffer] = there[next(iter(tensors))].untyped_storage()
        apart = len({storage.data_ptr() for storage in places.values()}) == len(places)
        return places if apart else None

    def _over(
        self,
        layer: int,
        cache: Caches,
        source: Source,
        inputs: Inputs,
        there: Mapping[Path, Tensor],
        places: Mapping[Buffer, torch.UntypedStorage],
    ) -> RecordedSegment:
        made, shift = self.segment, layer - self.layer
        recorder = made.recorder.again()
        with Trace.moved(places):
            recording = recorder.bind(self.trace, [None] * len(self.trace.keep))
        left = iter(recorder.rebind(recording.tensors))
        fresh = {id(value) for value in made.fresh_rows}

        def epoch(value: Number) -> int:
            return source.epoch if id(value) in fresh or epoch_of(value) == made.epoch else epoch_of(value)

        def moved(value: Number) -> Number:
            return over(value, [next(left) for _ in tensors_of(value)], epoch(value))

        def own(rows: Number, index: int, name: str) -> Number:
            paths = (_block(index - self.layer, name, place) for place, _ in enumerate(tensors_of(rows)))
            return over(rows, [there[path] for path in paths], epoch(rows))

        leaves, result = mapped((made.leaves, made.result), moved)
        leaves = {(index + shift, name): tree for (index, name), tree in leaves.items()}
        rows = [value for (_, name), tree in leaves.items() if name == "rows" for value in values_in(tree)]
        if inputs.keeps_rows:
            inputs.left([tensor for value in rows for tensor in tensors_of(value)])
        blocks = {
            index + shift: block if made.private else Block(own(block.k, index, "k"), own(block.v, index, "v"))
            for index, block in made.blocks.items()
        }
        return RecordedSegment(
            recorder,
            recording.tapes,
            [self._reading(reading, shift, there) for reading in made.reads],
            leaves,
            blocks,
            made.private,
            {i + shift: Block(own(b.k, i, "k"), own(b.v, i, "v")) for i, b in made.grown.items()},
            made.added,
            {index + shift: cache.tokens[index + shift] for index in made.tokens},
            made.position,
            made.steps,
            result,
            source.epoch,
            [value for value in rows if isinstance(value, Masked) and value.epoch == source.epoch],
        )

    def _reading(self, reading: Reading, shift: int, there: Mapping[Path, Tensor]) -> Reading:
        """What the other layer's segment reads: its own rows where those stay at their place, else the same copies."""
        values = dict(reading.values)
        for number, value in reading.values.items() if reading.name == "rows" else ():
            paths = [_row(reading.layer - self.layer, number, place) for place, _ in enumerate(tensors_of(value))]
            if any(path in tensors for path in paths for tensors in self.own.values()):
                values[number] = over(value, [there[path] for path in paths], epoch_of(value))
        return Reading(reading.layer + shift, reading.name, values)


def _tensors(layer: int, cache: Caches, inputs: Inputs, weights: Weights) -> dict[Path, Tensor]:
    """The tensors that a segment of a layer may read where they are: parameters, rows that last, keys and values."""
    found: dict[Path, Tensor] = {}
    for name, tensors in weights.items():
        group, _, rest = name.partition(".")
        index, _, matrix = rest.partition(".")
        path = (group, int(index) - layer, matrix) if index.isdecimal() else (name,)
        found.update(((*path, place), tensor) for place, tensor in enumerate(tensors))
    for offset, here in enumerate(cache.layers, -layer):
        if here.block is not None:
            for part, rows in (("k", here.block.k), ("v", here.block.v)):
                found.update((_block(offset, part, n), tensor) for n, tensor in enumerate(tensors_of(rows)))
        for number, value in enumerate(values_in(here.rows)):
            own = enumerate(tensors_of(value))
            found.update((_row(offset, number, n), tensor) for n, tensor in own if inputs.lasts(tensor))
    return found


def _block(offset: int, name: str, place: int) -> Path:
    return ("block", offset, name, place)


def _row(offset: int, number: int, place: int) -> Path:
    return ("row", offset, number, place)


def _look(layer: LayerCache, epoch: int, inputs: Inputs) -> Any:
    """All of a layer that a segment may depend on, but for the numbers; and which of its rows stay where they are."""
    held = {name: look(value, epoch) for name, value in vars(layer).items() if name != "kept"}
    lasting = [inputs.lasts(tensor) for value in values_in(layer.rows) for tensor in tensors_of(value)]
    return {**held, "kept": layer.kept is None, "lasting": lasting}


def _first(cache: Caches, layer: int, offsets: Iterable[int]) -> list[int]:
    """For each value in some layers, counted from one, the place where the same object comes first."""
    held = [id(value) for offset in sorted(offsets) for value in values_in(vars(cache.layers[layer + offset]))]
    places: dict[int, int] = {}
    return [places.setdefault(value, place) for place, value in enumerate(held)]


def _layout(tensor: Tensor) -> Any:
    return tensor.dtype, tensor.shape, tensor.stride(), tensor.storage_offset()


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
