"""A recorded segment: what it reads and leaves in a cache, and its replay."""

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from parties.decoding.batch import Caches
from parties.decoding.cache import Block, LayerCache
from parties.decoding.program import Program
from parties.engines.fss.arithmetic.values import Masked, Number
from parties.engines.fss.randomness.source import Source
from parties.engines.fss.recording.tape import Tape
from parties.engines.fss.recording.trace import Trace
from parties.engines.fss.recording.tracer import NotRecordable
from parties.engines.fss.replay.held import (
    TOKEN,
    Key,
    Replaced,
    epoch_of,
    held,
    is_same,
    own_blocks,
    own_inputs,
    was_replaced,
    written,
)
from parties.engines.fss.replay.inputs import Inputs
from parties.engines.fss.replay.parts import End, Parts
from parties.engines.fss.replay.reading import Moves, Reading
from parties.engines.fss.replay.recorder import SegmentRecorder
from parties.engines.fss.replay.values import mapped, over, tensors_of, values_in

_UNCHANGED = ("kept", "queries")


@dataclass
class RecordedSegment:
    """Replays a segment on the cache that it was recorded on.

    Attributes:
        recorder: The rounds, and what was drawn and dealt.
        tapes: The tapes, by number.
        reads: What the segment reads besides blocks.
        leaves: What it leaves in the cache.
        blocks: Keys and values that it reads, by layer.
        private: Whether the blocks are copies of the cache's, because the segment leaves other keys and values.
        grown: Keys and values that grow, by layer.
        added: Tokens by which they grow.
        tokens: Tokens of the layers of `blocks` at the recording.
        position: Position of the recorded token.
        steps: Positions by which it moves the sequence.
        result: What the program returns.
        epoch: Epoch of the recorded masks.
        fresh_rows: The masked values among the rows that it leaves, whose masks are new in each replay.
        trace: The tapes before they were bound to memory, for recordings of layers that are alike.
        stage: See `Parts`.
    """

    recorder: SegmentRecorder
    tapes: Sequence[Tape]
    reads: Sequence[Reading]
    leaves: Mapping[Key, Any]
    blocks: Mapping[int, Block]
    private: bool
    grown: Mapping[int, Block]
    added: int
    tokens: Mapping[int, int]
    position: int
    steps: int
    result: Any
    epoch: int
    fresh_rows: Sequence[Masked]
    trace: Trace | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._parts = Parts(self.recorder, self.tapes)
        self.stage = self._parts.stage

    @classmethod
    def record(
        cls, program: Callable[[], Program[Any]], cache: Caches, source: Source, inputs: Inputs
    ) -> "RecordedSegment":
        """Records a segment; the cache is left as it was.

        Raises:
            NotRecordable: The segment depends on data, or changes more of the cache than a recording can.
        """
        try:
            return cls._record(program, cache, source, inputs, private=False)
        except Replaced:
            return cls._record(program, cache, source, inputs, private=True)

    @classmethod
    def _record(
        cls, program: Callable[[], Program[Any]], cache: Caches, source: Source, inputs: Inputs, *, private: bool
    ) -> "RecordedSegment":
        restore, recorder = cache.snapshot(), SegmentRecorder(source, inputs)
        try:
            static = own_inputs(cache, TOKEN, inputs)
            if private:
                own_blocks(cache)
            blocks = {i: layer.block for i, layer in enumerate(cache.layers) if layer.block is not None}
            position, tokens, grown = cache.position, cache.tokens, dict[int, Block]()
            shown = [(layer.k, layer.v) for layer in cache.layers]
            fixed = [getattr(layer, name) for layer in cache.layers for name in _UNCHANGED]
            result = recorder.record(program())
            kept = [getattr(layer, name) for layer in cache.layers for name in _UNCHANGED]
            if any(map(operator.is_not, kept, fixed)):
                raise NotRecordable("a segment", "it changes more of the cache than can be replayed")
            steps, added = cache.position - position, max(map(operator.sub, cache.tokens, tokens))
            changed = [i for i, layer in enumerate(cache.layers) if was_replaced(layer, shown[i])]
            if not private:
                grown = {i: written(cache, i, blocks) for i in changed}
            leaves = {key: tree for key, tree in held(cache, TOKEN).items() if not is_same(tree, static[key])}
            if private:
                leaves |= {(i, name): getattr(cache.layers[i], name) for i in changed for name in ("k", "v")}
            left_values = (leaves, result)
            trace, kept = recorder.end(recorder.leave([t for v in values_in(left_values) for t in tensors_of(v)]))
            recording = recorder.bind(trace, kept)
        finally:
            restore()
            recorder.put_back()
        left = iter(recorder.rebind(recording.tensors))
        leaves, result = mapped(
            left_values, lambda value: over(value, [next(left) for _ in tensors_of(value)], epoch_of(value))
        )
        addresses = {storage.data_ptr() for tape in recording.tapes for storage in tape.externals}
        left_tensors = [tensor for value in values_in((leaves, result)) for tensor in tensors_of(value)]
        addresses |= {tensor.untyped_storage().data_ptr() for tensor in left_tensors}  # some are left as they were read

        def read(value: Number) -> bool:
            return any(tensor.untyped_storage().data_ptr() in addresses for tensor in tensors_of(value))

        reads = {key: {i: v for i, v in enumerate(values_in(tree)) if read(v)} for key, tree in static.items()}
        rows = [value for (_, name), tree in leaves.items() if name == "rows" for value in values_in(tree)]
        if inputs.keeps_rows:
            inputs.left([tensor for value in rows for tensor in tensors_of(value)])
        made = cls(
            recorder,
            recording.tapes,
            [Reading(*key, values) for key, values in reads.items() if values],
            leaves,
            (used := {i: block for i, block in blocks.items() if read(block.k) or read(block.v)}),
            private,
            grown,
            added,
            {i: tokens[i] for i in used},
            position,
            steps,
            result,
            source.epoch,
            [value for value in rows if isinstance(value, Masked) and value.epoch == source.epoch],
        )
        made.trace = trace
        return made

    def fits(self, cache: Caches) -> bool:
        """Whether the cache has the blocks of the recording, with room, and values of the same shapes."""
        layers = cache.layers
        if self._stale(layers):
            return False
        if self.private and not all(layers[index].spare() for index in self.blocks):
            return False
        for index in self.grown:
            if layers[index].room < self.added:
                return False
        return all(reading.moves(layers) is not None for reading in self.reads)

    def stale(self, cache: Caches) -> bool:
        """Whether the cache has other blocks by now, so that the recording will never fit again."""
        return self._stale(cache.layers)

    def _stale(self, layers: Sequence[LayerCache]) -> bool:
        for index in self.blocks:
            block, found = self.blocks[index], layers[index].spare()
            if self.private:
                if found is not None and found.k.shape != block.k.shape:
                    return True
            elif found is None or found.k.public is not block.k.public or found.v.public is not block.v.public:
                return True
        return False

    def undo(self, cache: Caches) -> Callable[[], None]:
        """Returns what puts back the masks of the spare rows that a replay is about to write."""
        first = {index: cache.layers[index].tokens for index in self.grown}
        masks = [
            rows.mask[:, first[index] : first[index] + self.added]
            for index, block in self.grown.items()
            for rows in (block.k, block.v)
        ]
        before = [mask.clone() for mask in masks]

        def put_back() -> None:
            for mask, numbers in zip(masks, before, strict=True):
                mask.copy_(numbers)

        return put_back

    def replay(self, cache: Caches, source: Source, inputs: Inputs, end: End) -> Any:
        """Runs the segment; returns its result.

        Args:
            cache: The cache, which `fits`.
            source: The party's randomness; the epoch of the attempt has begun, in stage `stage` of its meter.
            inputs: The shared memory that the segment was recorded with, filled with the segment's randomness.
            end: Binds what ends a part, always alike.

        Raises:
            TruncationFailure: A check failed; the cache is as it was.
        """
        moves: Moves = []
        layers = cache.layers
        for reading in self.reads:
            moves += reading.moves(layers) or ()
        if moves:
            inputs.take(moves)
        if self.private:
            self._take_blocks(cache)
        self.recorder.numbers.write(cache.position - self.position, self._more_rows(cache))
        self._parts.run(source, inputs, end)
        return self.leave(cache, source.epoch, inputs)

    def bind(self, source: Source, inputs: Inputs, end: End) -> None:
        """See `Parts.bind`."""
        self._parts.bind(source, inputs, end)

    def _more_rows(self, cache: Caches) -> int:
        """Rows by which the layers are longer than at the recording: all that it reads grow alike."""
        for index in self.tokens:
            return cache.layers[index].tokens - self.tokens[index]
        return 0

    def leave(self, cache: Caches, epoch: int, inputs: Inputs) -> Any:
        """Puts what the tapes wrote into the cache, as of an epoch; returns the segment's result."""
        cache.position += self.steps
        layers = cache.layers
        for index in self.grown:
            layer = layers[index]
            layer.show(self.grown[index], layer.tokens + self.added)

        def fresh(value: Number) -> Number:
            began = epoch_of(value)
            return over(value, list(map(torch.clone, tensors_of(value))), epoch if began == self.epoch else began)

        for index, name in self.leaves:
            tree, layer = self.leaves[index, name], layers[index]
            if name == "rows" and inputs.keeps_rows:
                layer.rows = tree
                for value in self.fresh_rows:
                    value.epoch = epoch
            else:
                setattr(layer, name, mapped(tree, fresh))
            if name in ("k", "v"):
                layer.room = 0
        return None if self.result is None else mapped(self.result, fresh)

    def _take_blocks(self, cache: Caches) -> None:
        """Copies keys and values to where the tapes read them."""
        for index, block in self.blocks.items():
            found = cache.layers[index].spare()
            assert found is not None  # noqa: S101 - it fits
            for here, there in ((block.k, found.k), (block.v, found.v)):
                here.public.copy_(there.public)
                here.mask.copy_(there.mask)
