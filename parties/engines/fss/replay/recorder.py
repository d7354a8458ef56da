"""Records a segment: tapes between its rounds, and the places of what it draws, is dealt, and opens."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from parties.decoding.program import Program
from parties.engines.fss.arithmetic.opening import PLACE_BYTES, Opening, combined
from parties.engines.fss.randomness.constants import Constant, encoded
from parties.engines.fss.randomness.retries import Retries
from parties.engines.fss.randomness.source import DEALER, Condition, Recorder, Shape, Source
from parties.engines.fss.recording.trace import Trace
from parties.engines.fss.recording.tracer import NotRecordable, Tracer
from parties.engines.fss.replay.inputs import MOST_CHECKS, Drawn, Inputs
from parties.engines.fss.replay.pieces import Pieces
from parties.metering.stages import RECORDING
from parties.transport.fixed_frames import FixedFrames
from parties.transport.frame import HEADER_BYTES


@dataclass
class Round:
    """A part of a segment, up to the round at its end; after the last part nothing is opened.

    Attributes:
        tapes: Stage and number of each tape.
        notes: Constants, in order: bytes, or the places of numbers that change.
        checks: Number of checks up to here.
        openings: What is opened.
        hidden: The tensors that the tapes write for it.
        opened: The places of what is opened; if it is `staged`, of what the peer sends.
        staged: Whether both are memory of the host, to and from which the tapes copy.
        frames: If so, the frames that they are in, if they are aligned there.
    """

    tapes: list[tuple[str, int]] = field(default_factory=list)
    notes: list[bytes | Tensor] = field(default_factory=list)
    checks: int = 0
    openings: Sequence[Opening] = ()
    hidden: list[Tensor] = field(default_factory=list)
    opened: list[Tensor] = field(default_factory=list)
    staged: bool = False
    frames: FixedFrames | None = None


class Varying:
    """Numbers that change from token to token, in memory that the recordings of layers alike share.

    Attributes:
        by_token: What makes the numbers some tokens after the recording, and where they go.
        by_row: The same for numbers that depend on how many rows the cache has grown by.
        own: The same for numbers that the party alone has, such as its token.
    """

    def __init__(self) -> None:
        self.by_token: list[tuple[Callable[[int], Tensor], Tensor]] = []
        self.by_row: list[tuple[Callable[[int], Tensor], Tensor]] = []
        self.own: list[tuple[Callable[[], Tensor], Tensor]] = []
        self._written = (0, 0)

    def write(self, later: int, rows: int) -> None:
        """Writes the numbers of a token; public ones unless a layer alike has.

        Args:
            later: Tokens since the recording.
            rows: Rows by which the cache has grown since then: less, where a step evicts what it appends.
        """
        for numbers, place in self.own:
            place.copy_(numbers())
        if self._written == (later, rows):
            return
        for count, public in ((later, self.by_token), (rows, self.by_row)):
            for made, place in public:
                place.copy_(made(count))
        self._written = (later, rows)


class SegmentRecorder(Recorder):
    """Runs a program once, on whatever its inputs hold, and notes what a replay does.

    Args:
        source: The party's randomness.
        inputs: Shared memory.
    """

    def __init__(self, source: Source, inputs: Inputs) -> None:
        self._source, self._inputs = source, inputs
        self.tracer = Tracer()
        self.drawn = Drawn()
        self.numbers = Varying()
        self.failures: list[Condition] = []
        self.sent: list[tuple[Tensor, tuple[int, ...]]] = []
        self.noted: list[tuple[list[bytes | Tensor], int, Tensor]] = []
        self.rounds = [Round()]
        self._overwritten: list[tuple[Tensor, Tensor]] = []
        self.risk = 0.0
        self._stage = self._last = source.meter.current

    def record(self, program: Program[Any]) -> Any:
        """Runs the program; returns its result.

        Raises:
            NotRecordable: It depends on data, or takes too much randomness.
        """
        with self._listening(), self.tracer:
            wanted: Sequence[Any] | None = None
            try:
                while True:
                    opened = None if wanted is None else self._opened(wanted)
                    wanted = next(program) if opened is None else program.send(opened)
            except StopIteration as stop:
                return stop.value

    def put_back(self) -> None:
        """Puts back the rows that the program has overwritten."""
        for rows, before in self._overwritten:
            rows.copy_(before)
        self._overwritten.clear()

    def leave(self, left: Sequence[Tensor]) -> Sequence[Tensor]:
        """Takes what the segment leaves, and copies rows that stay out of memory that the next segment overwrites."""
        if self._inputs.keeps_rows:
            with self.tracer:
                left = [tensor.clone(memory_format=torch.contiguous_format) for tensor in left]
        if self._stage == RECORDING:
            self._stage = self._last
        self._cut()
        return left

    def end(self, keep: Sequence[Tensor]) -> tuple[Trace, list[Tensor]]:
        """Ends the trace; returns it, and the tensors that it keeps: those of openings and notes, and these."""
        hidden = [tensor for made in self.rounds for tensor in made.hidden]
        kept = [*hidden, *(tensor for _, _, tensor in self.noted), *keep]
        trace = self.tracer.end(kept)
        del self.tracer
        return trace, kept

    def bind(self, trace: Trace, kept: Sequence[Tensor | None]) -> Any:
        """Plans the memory of the tapes; returns the recording. For the arguments see `Trace.recording`.

        Raises:
            NotRecordable: A GPU cannot replay it.
        """
        return trace.recording(kept, self._inputs.arena, self._inputs.recording(self.drawn))

    def again(self) -> "SegmentRecorder":
        """Returns the recorder of a segment that does the same, whose tensors it has yet to `rebind`."""
        other = copy(self)
        other.rounds = [replace(made, notes=list(made.notes), hidden=list(made.hidden)) for made in self.rounds]
        notes = {id(mine.notes): its.notes for mine, its in zip(self.rounds, other.rounds, strict=True)}
        other.noted = [(notes[id(own)], place, tensor) for own, place, tensor in self.noted]
        return other

    def rebind(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Takes the tensors of a recording; returns those that `end` was asked to keep."""
        left = iter(tensors)
        for made in self.rounds:
            made.hidden = [next(left) for _ in made.hidden]
        for notes, place, _ in self.noted:
            notes[place] = next(left)
        return list(left)

    @contextmanager
    def _listening(self) -> Iterator[None]:
        source, retries = self._source, self._source.retries
        source.recorder, source.retries = self, Retries()
        try:
            with source.meter.rehearsal(RECORDING, self._entered):
                self._stage = source.meter.current
                yield
        finally:
            self.risk = source.retries.expected
            source.recorder, source.retries = None, retries

    def _entered(self) -> None:
        """Ends a tape where another stage begins. What no stage did belongs to the next one, or to that of the round.

        A graph ends with a round, to whose stage all of its time belongs.
        """
        if self._stage == RECORDING and not self._inputs.staged:
            self._stage = self._source.meter.current
        elif not self._inputs.staged:
            self._cut()

    def _cut(self) -> None:
        if self.tracer.has_notes:
            self.rounds[-1].tapes.append((self._stage, self.tracer.cut()))
            self._last = self._stage
        self._stage = self._source.meter.current

    def _opened(self, wanted: Sequence[Opening]) -> list[Tensor]:
        if self._source.rank == DEALER:
            return [opening.hidden for opening in wanted]
        made, staged = self.rounds[-1], self._inputs.staged
        made.openings, made.staged = wanted, staged
        if staged or self._stage == RECORDING:
            self._stage = wanted[0].stage
        own = [opening.hidden for opening in wanted]
        with self.tracer.paused():
            if staged:
                made.frames, places, made.opened = self._framed(own)
            else:
                made.opened = [self._inputs.place(torch.zeros(mine.shape, dtype=mine.dtype)) for mine in own]
        made.hidden = [place.copy_(mine) for place, mine in zip(places, own, strict=True)] if staged else own
        self._cut()
        if staged:
            self._stage = wanted[0].stage
        self.rounds.append(Round(checks=len(self.failures)))
        if not staged:
            return made.opened
        return [combined(mine, theirs.to(mine.device)) for mine, theirs in zip(own, made.opened, strict=True)]

    def _framed(self, tensors: Sequence[Tensor]) -> tuple[FixedFrames, list[Tensor], list[Tensor]]:
        """Returns frames in memory of the host, and there places of what is sent and received, for the tapes.

        Packed bits may end within a word: what is not aligned after them has memory of its own.
        """
        sides: list[Tensor] = []

        def make(size: int) -> memoryview:
            sides.append(self._inputs.place(torch.zeros(size, dtype=torch.uint8)))
            return sides[-1].numpy().data

        frames = FixedFrames(PLACE_BYTES + sum(tensor.nbytes for tensor in tensors), make)
        hidden, opened = (self._places(side, tensors) for side in sides)
        return frames, hidden, opened

    def _places(self, frame: Tensor, tensors: Sequence[Tensor]) -> list[Tensor]:
        places, at = [], HEADER_BYTES + PLACE_BYTES
        for tensor in tensors:
            if at % tensor.itemsize:
                places.append(self._inputs.place(torch.zeros(tensor.shape, dtype=tensor.dtype)))
            else:
                places.append(frame[at : at + tensor.nbytes].view(tensor.dtype).view(tensor.shape))
            at += tensor.nbytes
        return places

    def _on_host(self, tensor: Tensor) -> Tensor:
        """Copies a tensor to memory of the host, in each replay anew."""
        with self.tracer.paused():
            place = self._inputs.place(torch.zeros(tensor.shape, dtype=tensor.dtype))
        return place.copy_(tensor)

    # -- what a source asks for ----------------------------------------------------------------------------------------

    def own(self, shape: Shape, dtype: torch.dtype, stream: int = 0) -> Tensor:
        """See `Recorder`."""
        return self._place(self._inputs.streams[stream], self.drawn.own[stream], shape, dtype)

    def dealt(self, shape: Shape, dtype: torch.dtype) -> Tensor:
        """See `Recorder`."""
        return self._place(self._inputs.dealt, self.drawn.dealt, shape, dtype)

    def _place(self, pieces: Pieces, taken: list[int], shape: Shape, dtype: torch.dtype) -> Tensor:
        size = math.prod(shape) * dtype.itemsize
        if sum(taken) + size > (most := self._inputs.most_bytes):
            raise NotRecordable("a draw", f"a recorded segment takes at most {most:,} bytes of randomness")
        with self.tracer.paused():
            return pieces.take(taken, size).view(dtype).reshape(tuple(shape))

    def send(self, tensor: Tensor, *receivers: int) -> None:
        """See `Recorder`. Copied to memory that recordings share: all that a dealer sends would take gigabytes."""
        place = self._place(self._inputs.dealt, self.drawn.dealt, tensor.shape, tensor.dtype)
        self.sent.append((place.copy_(tensor), receivers))

    def note(self, constant: Constant) -> None:
        """See `Recorder`."""
        notes = self.rounds[-1].notes
        if isinstance(constant, Tensor) and self._inputs.staged:
            with self.tracer.paused():
                on_host = constant.is_pinned()
            if on_host or (constant.is_cuda and not self.tracer.constant(constant)):
                notes.append(constant if on_host else self._on_host(constant))
                return
        elif isinstance(constant, Tensor) and not self.tracer.constant(constant):
            self.noted.append((notes, len(notes), constant))
            notes.append(constant)
            return
        with self.tracer.paused():
            octets = encoded(constant)
        if notes and isinstance(notes[-1], bytes):
            notes[-1] += octets
        else:
            notes.append(octets)

    def varying(self, numbers: Callable[[int], Tensor], *, by_row: bool = False) -> Tensor:
        """See `Recorder`."""
        with self.tracer.paused():
            place = self._inputs.place(numbers(0))
        (self.numbers.by_row if by_row else self.numbers.by_token).append((numbers, place))
        return place

    def own_numbers(self, numbers: Callable[[], Tensor]) -> Tensor:
        """See `Recorder`."""
        with self.tracer.paused():
            place = self._inputs.place(numbers())
        self.numbers.own.append((numbers, place))
        return place

    def overwrites(self, rows: Tensor) -> None:
        """See `Recorder`."""
        with self.tracer.paused():
            self._overwritten.append((rows, rows.clone()))

    def flag(self) -> Tensor:
        """See `Recorder`."""
        if len(self.failures) == MOST_CHECKS:
            raise NotRecordable("a check", f"a recorded segment makes at most {MOST_CHECKS} checks")
        with self.tracer.paused():
            return self._inputs.failed[len(self.failures) :][:1]

    def refuse(self, failed: Tensor, failure: Condition) -> None:
        """See `Recorder`."""
        place = self.flag()
        if failed.data_ptr() != place.data_ptr():
            place.copy_(failed)
        self.failures.append(failure)
        self.rounds[-1].checks = len(self.failures)
