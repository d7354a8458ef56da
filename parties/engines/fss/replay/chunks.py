"""Recordings of the chunks of a prompt, each for all layers that do the same.

A chunk is run once in each layer: a recording for one layer alone would never be replayed. So its tapes read the
layer's parameters from copies, which change when the next layer begins, and what the cache holds of the layer likewise.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from parties.decoding.batch import Caches
from parties.decoding.cache import Cache, LayerCache
from parties.decoding.layer_names import ChunkName
from parties.decoding.program import Program
from parties.engines.fss.arithmetic.values import Number
from parties.engines.fss.randomness.source import Source
from parties.engines.fss.recording.tape import Tape
from parties.engines.fss.recording.trace import Trace
from parties.engines.fss.recording.tracer import NotRecordable
from parties.engines.fss.replay.held import CHUNK, Key, epoch_of, held, is_same, own_inputs
from parties.engines.fss.replay.inputs import Inputs
from parties.engines.fss.replay.layer_parameters import LayerParameters, Weights
from parties.engines.fss.replay.parts import End, Parts
from parties.engines.fss.replay.reading import Moves, Reading
from parties.engines.fss.replay.recorder import SegmentRecorder
from parties.engines.fss.replay.values import look, mapped, over, tensors_of, values_in
from parties.metering.stages import RECORDING


@dataclass
class RecordedChunk:
    """Replays a chunk of a prompt in any layer that looks as the recorded one did.

    Attributes:
        parts: What it runs.
        reads: What that reads of the layer and of the next one, whose indices are 0 and 1.
        leaves: What it leaves in these.
        kept: How many items at the start of each of `leaves`, if it is a tuple, stay as they are and are left out.
        epoch: Epoch of the recorded masks.
    """

    parts: Parts
    reads: Sequence[Reading]
    leaves: Mapping[Key, Any]
    kept: Mapping[Key, int]
    epoch: int

    @classmethod
    def record(
        cls,
        program: Callable[[], Program[None]],
        cache: Caches,
        layer: int,
        source: Source,
        inputs: Inputs,
        parameters: LayerParameters,
    ) -> "RecordedChunk":
        """Records a chunk; the cache is left as it was.

        Raises:
            NotRecordable: The chunk depends on data, or on more than its layer and the next one.
        """
        restore, recorder = cache.snapshot(), SegmentRecorder(source, inputs)
        try:
            here = Cache(_window(cache, layer))
            static, others = own_inputs(here, CHUNK, inputs), list(_others(cache, layer))
            recorder.record(program())
            if any(now is not before for now, before in zip(_others(cache, layer), others, strict=True)):
                raise NotRecordable("a chunk", "it changes more of the cache than can be replayed")
            left = {key: tree for key, tree in held(here, CHUNK).items() if not is_same(tree, static[key])}
            kept = {key: _same_items(tree, static[key]) for key, tree in left.items()}
            left = {key: tree[kept[key] :] if kept[key] else tree for key, tree in left.items()}
            trace, tensors = recorder.end(recorder.leave([t for v in values_in(left) for t in tensors_of(v)]))
            if _addresses(others) & {buffer.fixed for buffer in trace.externals if buffer.size}:
                raise NotRecordable("a chunk", "it reads another layer of the cache than its own and the next")
            with Trace.moved(parameters.moved(trace, layer)):
                recording = recorder.bind(trace, tensors)
        finally:
            restore()
            recorder.put_back()
        written = iter(recorder.rebind(recording.tensors))
        leaves = mapped(left, lambda value: over(value, [next(written) for _ in tensors_of(value)], epoch_of(value)))
        used = {storage.data_ptr() for tape in recording.tapes for storage in tape.externals} | _addresses(leaves)
        reads = {
            key: {place: value for place, value in enumerate(values_in(tree)) if _addresses(value) & used}
            for key, tree in static.items()
        }
        reading = [Reading(*key, values) for key, values in reads.items() if values]
        return cls(Parts(recorder, recording.tapes), reading, leaves, kept, source.epoch)

    def replay(self, layers: Sequence[LayerCache], source: Source, inputs: Inputs, end: End) -> None:
        """Runs the chunk; see `RecordedSegment.replay`.

        Args:
            layers: The layer, whose parameters are shown, and the next one.
            source: The party's randomness.
            inputs: The shared memory that the chunk was recorded with, filled with its randomness.
            end: Binds what ends a part, always alike.

        Raises:
            TruncationFailure: A check failed; the layers are as they were.
        """
        moves: Moves = []
        for reading in self.reads:
            moves += reading.moves(layers) or ()
        inputs.take(moves)
        self.parts.run(source, inputs, end)
        self._leave(layers, source.epoch)

    def _leave(self, layers: Sequence[LayerCache], epoch: int) -> None:
        """Copies what the tapes wrote into the layers: the next replay, or a repeated one, writes it again."""

        def fresh(value: Number) -> Number:
            began = epoch_of(value)
            return over(value, list(map(torch.clone, tensors_of(value))), epoch if began == self.epoch else began)

        for (index, name), tree in self.leaves.items():
            left, kept = mapped(tree, fresh), self.kept[index, name]
            setattr(layers[index], name, getattr(layers[index], name)[:kept] + left if kept else left)


@dataclass
class ChunkInLayer:
    """A recorded chunk in one layer; the attributes and methods are those of a `RecordedSegment`."""

    chunk: RecordedChunk
    layer: int
    parameters: LayerParameters

    @property
    def recorder(self) -> SegmentRecorder:
        """What was drawn and dealt."""
        return self.chunk.parts.recorder

    @property
    def tapes(self) -> Sequence[Tape]:
        """The tapes, by number."""
        return self.chunk.parts.tapes

    @property
    def stage(self) -> str:
        """See `Parts`."""
        return self.chunk.parts.stage

    def replay(self, cache: Caches, source: Source, inputs: Inputs, end: End) -> None:
        """See `RecordedChunk.replay`."""
        self.parameters.show(self.layer)
        self.chunk.replay(_window(cache, self.layer), source, inputs, end)


class ChunkRecordings:
    """The recordings of a prompt's chunks.

    The first layer of a kind is interpreted: its rows, if they come from the embedding, have other bounds than those of
    the layers after it.

    Args:
        source: The party's randomness.
        inputs: The party's memory for recorded segments.
        weights: Returns the tensors of the installed parameters, by name.
    """

    def __init__(self, source: Source, inputs: Inputs, weights: Callable[[], Weights]) -> None:
        self._source, self._inputs = source, inputs
        self._parameters = LayerParameters(weights)
        self._known: dict[Hashable, list[tuple[Any, RecordedChunk | NotRecordable]]] = {}

    def clear(self) -> None:
        """Forgets the recordings, and frees the memory for parameters."""
        self._known.clear()
        self._parameters.clear()

    def find(self, name: ChunkName, program: Callable[[], Program[None]], cache: Caches) -> ChunkInLayer | None:
        """Returns the recording of a chunk in a layer, made now if need be; None for the first layer of the kind.

        Raises:
            NotRecordable: It has to be interpreted.
        """
        if name.kind not in self._known:
            self._known[name.kind] = []
            return None
        looks, known = self._looks(cache, name.layer), self._known[name.kind]
        made = next((made for others, made in known if others == looks), None)
        if made is None:
            made = self._recorded(program, cache, name.layer)
            known.append((looks, made))
        if isinstance(made, NotRecordable):
            raise made
        return ChunkInLayer(made, name.layer, self._parameters)

    def _recorded(
        self, program: Callable[[], Program[None]], cache: Caches, layer: int
    ) -> RecordedChunk | NotRecordable:
        meter = self._source.meter
        try:
            with meter.stage(RECORDING):
                made = RecordedChunk.record(program, cache, layer, self._source, self._inputs, self._parameters)
        except NotRecordable as refusal:
            return refusal
        if self._inputs.staged:
            meter.add("mpcbench_gpu_graph_captures_total", len(made.parts.tapes))
        return made

    def _looks(self, cache: Caches, layer: int) -> Any:
        """All that a chunk may depend on in a layer, but for numbers."""
        layers = [look(vars(here), self._source.epoch) for here in _window(cache, layer)]
        return layers, self._parameters.layout(layer)


def _window(cache: Caches, layer: int) -> list[LayerCache]:
    """The layer, and the next one if there is one."""
    return cache.layers[layer : layer + 2]


def _others(cache: Caches, layer: int) -> Iterator[Any]:
    """All that a chunk must neither read nor change: other layers, and which tokens the engine keeps."""
    for index, here in enumerate(cache.layers):
        yield from (here.kept,) if index in (layer, layer + 1) else vars(here).values()


def _same_items(tree: Any, before: Any) -> int:
    """How many items a tuple begins with that are all of those of a tuple before."""
    if not isinstance(tree, tuple) or any(now is not then for now, then in zip(tree, before, strict=False)):
        return 0
    return len(before) if len(before) <= len(tree) else 0


def _addresses(tree: Any) -> set[int]:
    """Where the memory of the values in a tree begins."""
    return {tensor.untyped_storage().data_ptr() for value in values_in(tree) for tensor in tensors_of(value)}
