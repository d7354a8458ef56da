"""A recorded segment: what it reads and leaves in a cache, and its replay."""

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from parties.decoding.cache import Block, Cache
from parties.decoding.program import Program
from parties.engines.fss.arithmetic.values import Masked, Number
from parties.engines.fss.randomness.source import Source
from parties.engines.fss.recording.tape import Tape
from parties.engines.fss.recording.tracer import NotRecordable
from parties.engines.fss.replay.recorder import Inputs, Round, SegmentRecorder
from parties.engines.fss.replay.values import mapped, over, tensors_of, values_in

Key = tuple[int, str]
"""A layer, and the name of what it holds."""
_READ = ("rows", "selection", "state")
_UNCHANGED = ("alive", "kept", "queries")


@dataclass
class RecordedSegment:
    """Replays a segment on the cache that it was recorded on.

    Attributes:
        recorder: The rounds, and what was drawn and dealt.
        tapes: The tapes, by number.
        reads: Values that the segment reads: where they are in the cache, and the tensors that the tapes read.
        leaves: What it leaves in the cache.
        blocks: Keys and values that it reads, by layer.
        grown: Keys and values that grow by the tokens of the segment, by layer.
        tokens: Number of these tokens.
        position: Position of the recorded token.
        epoch: Epoch of the recorded masks.
    """

    recorder: SegmentRecorder
    tapes: Sequence[Tape]
    reads: Mapping[Key, Mapping[int, Number]]
    leaves: Mapping[Key, Any]
    blocks: Mapping[int, Block]
    grown: Mapping[int, Block]
    tokens: int
    position: int
    epoch: int

    @classmethod
    def record(
        cls, program: Callable[[], Program[Any]], cache: Cache, source: Source, inputs: Inputs
    ) -> "RecordedSegment":
        """Records a segment whose result is in the cache; the cache is left as it was, but for spare rows.

        Raises:
            NotRecordable: The segment depends on data, returns a result, or changes more than a recording can.
        """
        restore, recorder = cache.snapshot(), SegmentRecorder(source, inputs)
        try:
            static = _own_inputs(cache)
            blocks = {i: layer.block for i, layer in enumerate(cache.layers) if layer.block is not None}
            tokens, position = cache.tokens, cache.position
            fixed = [getattr(layer, name) for layer in cache.layers for name in _UNCHANGED]
            result = recorder.record(program())
            kept = [getattr(layer, name) for layer in cache.layers for name in _UNCHANGED]
            if result is not None or cache.position != position or any(map(operator.is_not, kept, fixed)):
                raise NotRecordable(
                    "a segment", "it returns a result, or changes more of the cache than can be replayed"
                )
            after = cache.tokens
            grown = {i: _written(cache, i, blocks) for i, n in enumerate(after) if n != tokens[i]}
            leaves = {key: tree for key, tree in _held(cache).items() if not _same(tree, static[key])}
            recording = recorder.finish([t for value in values_in(leaves) for t in tensors_of(value)])
        finally:
            restore()
        left = iter(recorder.rebind(recording.tensors))
        leaves = mapped(leaves, lambda value: over(value, [next(left) for _ in tensors_of(value)], _epoch(value)))
        addresses = {buffer.fixed for tape in recording.tapes for buffer in tape.externals}

        def read(value: Number) -> bool:
            return any(tensor.untyped_storage().data_ptr() in addresses for tensor in tensors_of(value))

        reads = {key: {i: v for i, v in enumerate(values_in(tree)) if read(v)} for key, tree in static.items()}
        return cls(
            recorder,
            recording.tapes,
            {key: values for key, values in reads.items() if values},
            leaves,
            {i: block for i, block in blocks.items() if read(block.k) or read(block.v)},
            grown,
            max(now - before for now, before in zip(after, tokens, strict=True)),
            position,
            source.epoch,
        )

    @property
    def stage(self) -> str:
        """The stage of the segment's first tape, to which what belongs to none is accounted."""
        return self.recorder.rounds[0].tapes[0][0]

    def fits(self, cache: Cache) -> bool:
        """Whether the cache has the blocks of the recording, with room, and values of the same shapes."""
        if self.stale(cache) or any(
            cache.layers[i].tokens + self.tokens > block.capacity for i, block in self.grown.items()
        ):
            return False
        present = _held(cache)
        return all(
            _shapes(list(values_in(present[key])), values) == [v.shape for v in values.values()]
            for key, values in self.reads.items()
        )

    def stale(self, cache: Cache) -> bool:
        """Whether the cache has other blocks by now, so that the recording will never fit again."""
        now = {index: cache.layers[index].spare() for index in self.blocks}
        return any(
            found is None or found.k.public is not block.k.public or found.v.public is not block.v.public
            for found, block in zip(now.values(), self.blocks.values(), strict=True)
        )

    def replay(self, cache: Cache, source: Source, inputs: Inputs, exchange: Callable[[Round], None]) -> None:
        """Runs the segment.

        Args:
            cache: The cache, which `fits`.
            source: The party's randomness; the epoch of the attempt has begun.
            inputs: The shared memory that the segment was recorded with, filled with the segment's randomness.
            exchange: Opens a round.

        Raises:
            TruncationFailure: A check failed; the cache is as it was.
        """
        present = _held(cache)
        for key, values in self.reads.items():
            found = list(values_in(present[key]))
            for index, static in values.items():
                for here, there in zip(tensors_of(static), tensors_of(found[index]), strict=True):
                    here.copy_(there)
        later = cache.position - self.position
        for numbers, place in self.recorder.varied:
            place.copy_(numbers(later))
        source.retries.expected += self.recorder.risk
        checked = 0
        for made in self.recorder.rounds:
            for stage, number in made.tapes:
                with source.meter.stage(stage):
                    self.tapes[number].run()
            if made.checks > checked and inputs.failed_array[checked : made.checks].any():
                first = int(inputs.failed_array[checked : made.checks].argmax())
                raise self.recorder.failures[checked + first]()
            checked = made.checks
            exchange(made)
        self._leave(cache, source.epoch)

    def _leave(self, cache: Cache, epoch: int) -> None:
        for index, block in self.grown.items():
            cache.layers[index].show(block, cache.layers[index].tokens + self.tokens)

        def fresh(value: Number) -> Number:
            began = _epoch(value)
            return over(value, [t.clone() for t in tensors_of(value)], epoch if began == self.epoch else began)

        for (index, name), tree in self.leaves.items():
            setattr(cache.layers[index], name, mapped(tree, fresh))


def _epoch(value: Number) -> int:
    return value.epoch if isinstance(value, Masked) else Masked.CONSTANT


def _held(cache: Cache) -> dict[Key, Any]:
    return {(index, name): getattr(layer, name) for index, layer in enumerate(cache.layers) for name in _READ}


def _own_inputs(cache: Cache) -> dict[Key, Any]:
    """Replaces what the layers hold by copies, which the tapes then read; values that are one object stay one."""
    copies: dict[int, Number] = {}

    def copied(value: Number) -> Number:
        if id(value) not in copies:
            tensors = [tensor.clone(memory_format=torch.contiguous_format) for tensor in tensors_of(value)]
            copies[id(value)] = over(value, tensors, _epoch(value))
        return copies[id(value)]

    static = {key: mapped(tree, copied) for key, tree in _held(cache).items()}
    for (index, name), tree in static.items():
        setattr(cache.layers[index], name, tree)
    return static | {key: dict(tree) for key, tree in static.items() if isinstance(tree, dict)}


def _written(cache: Cache, index: int, blocks: Mapping[int, Block]) -> Block:
    """Returns the block of a layer that has grown, if it was written in place."""
    before, after = blocks.get(index), cache.layers[index].block
    if before is None or after is None or after.k.public is not before.k.public or after.v.mask is not before.v.mask:
        raise NotRecordable("a segment", "the keys and values of a layer were replaced")
    return after


def _shapes(found: Sequence[Number], wanted: Mapping[int, Number]) -> list[torch.Size | None]:
    return [found[index].shape if index < len(found) else None for index in wanted]


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(one[name] is other[name] for name in one)
    return one is other
