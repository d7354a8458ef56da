"""Records a segment: tapes between its rounds, and the places of what it draws, is dealt, and opens."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from parties.decoding.program import Program
from parties.engines.fss.arithmetic.opening import Opening
from parties.engines.fss.randomness.constants import Constant, encoded
from parties.engines.fss.randomness.frames import in_words
from parties.engines.fss.randomness.retries import Retries
from parties.engines.fss.randomness.source import DEALER, Condition, Recorder, Shape, Source
from parties.engines.fss.recording.memory import Arena
from parties.engines.fss.recording.tape import Recording
from parties.engines.fss.recording.tracer import NotRecordable, Tracer

MOST_BYTES = 1 << 28
"""Randomness of one kind that a recorded segment may take; memory that is not used is not touched."""
RECORDING = "setup.recording"
_MOST_CHECKS = 1 << 13


class Inputs:
    """Memory that recordings that run one after the other share: randomness, checks, and intermediate results.

    Attributes:
        streams: Keystreams of the party, [2, bytes]; the dealer expands two.
        dealt: What the dealer sends, [bytes].
        failed: Results of the checks; `failed_array` is the same memory.
        arena: Intermediate results.
    """

    def __init__(self) -> None:
        self.streams = torch.empty(2, MOST_BYTES, dtype=torch.uint8)
        self.dealt = torch.empty(MOST_BYTES, dtype=torch.uint8)
        self.failed = torch.zeros(_MOST_CHECKS, dtype=torch.bool)
        self.failed_array = self.failed.numpy()
        self.arena = Arena()


@dataclass
class Round:
    """A part of a segment, up to the round at its end; after the last part nothing is opened.

    Attributes:
        tapes: Stage and number of each tape.
        notes: Constants, in order: bytes, or the places of numbers that change.
        checks: Number of checks up to here.
        openings: What is opened.
        hidden: The tensors that the tapes write for it.
        opened: The places of what is opened.
        bound: The same as arrays, at a party that exchanges them.
    """

    tapes: list[tuple[str, int]] = field(default_factory=list)
    notes: list[bytes | Tensor] = field(default_factory=list)
    checks: int = 0
    openings: Sequence[Opening] = ()
    hidden: list[Tensor] = field(default_factory=list)
    opened: list[Tensor] = field(default_factory=list)
    bound: Any = None


class SegmentRecorder(Recorder):
    """Runs a program once, on whatever its inputs hold, and notes what a replay does.

    Args:
        source: The party's randomness.
        inputs: Shared memory.
    """

    def __init__(self, source: Source, inputs: Inputs) -> None:
        self._source, self._inputs = source, inputs
        self.tracer = Tracer()
        self.drawn, self.dealt_bytes = [0, 0], 0
        self.varied: list[tuple[Callable[[int], Tensor], Tensor]] = []
        self.placed: list[tuple[Callable[[int], Tensor], Tensor]] = []
        self.failures: list[Condition] = []
        self.sent: list[tuple[Tensor, tuple[int, ...]]] = []
        self.noted: list[tuple[list[bytes | Tensor], int, Tensor]] = []
        self.rounds = [Round()]
        self.risk = 0.0
        self._stage = source.meter.current

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
                self._cut()
                return stop.value

    def finish(self, keep: Sequence[Tensor]) -> Recording:
        """Plans the memory of the tapes; what is opened, noted and sent is kept, too."""
        hidden = [opening.hidden for made in self.rounds for opening in made.openings]
        others = [tensor for _, _, tensor in self.noted] + [tensor for tensor, _ in self.sent]
        return self.tracer.finish([*hidden, *others, *keep], self._inputs.arena)

    def rebind(self, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        """Takes the tensors of a finished recording; returns those that `finish` was asked to keep."""
        left = iter(tensors)
        for made in self.rounds:
            made.hidden = [next(left) for _ in made.openings]
        for notes, place, _ in self.noted:
            notes[place] = next(left)
        self.sent = [(next(left), to) for _, to in self.sent]
        return list(left)

    @contextmanager
    def _listening(self) -> Iterator[None]:
        source, retries = self._source, self._source.retries
        source.recorder, source.retries = self, Retries()
        try:
            with source.meter.rehearsal(RECORDING, self._cut):
                self._stage = source.meter.current
                yield
        finally:
            self.risk = source.retries.expected
            source.recorder, source.retries = None, retries

    def _cut(self) -> None:
        if self.tracer.has_notes:
            self.rounds[-1].tapes.append((self._stage, self.tracer.cut()))
        self._stage = self._source.meter.current

    def _opened(self, wanted: Sequence[Opening]) -> list[Tensor]:
        if self._source.rank == DEALER:
            return [opening.hidden for opening in wanted]
        self._cut()
        with self.tracer.paused():
            opened = [torch.zeros_like(opening.hidden, memory_format=torch.contiguous_format) for opening in wanted]
        made = self.rounds[-1]
        made.openings, made.opened = wanted, opened
        self.rounds.append(Round(checks=len(self.failures)))
        return opened

    # -- what a source asks for ----------------------------------------------------------------------------------------

    def own(self, shape: Shape, dtype: torch.dtype, stream: int = 0) -> Tensor:
        """See `Recorder`."""
        place, self.drawn[stream] = self._place(self._inputs.streams[stream], self.drawn[stream], shape, dtype)
        return place

    def dealt(self, shape: Shape, dtype: torch.dtype) -> Tensor:
        """See `Recorder`."""
        place, self.dealt_bytes = self._place(self._inputs.dealt, self.dealt_bytes, shape, dtype)
        return place

    def _place(self, octets: Tensor, start: int, shape: Shape, dtype: torch.dtype) -> tuple[Tensor, int]:
        size = math.prod(shape) * dtype.itemsize
        if start + size > MOST_BYTES:
            raise NotRecordable("a draw", f"a recorded segment takes at most {MOST_BYTES:,} bytes of randomness")
        with self.tracer.paused():
            place = octets[start : start + size].view(dtype).reshape(tuple(shape))
        return place, start + in_words(size)

    def send(self, tensor: Tensor, *receivers: int) -> None:
        """See `Recorder`."""
        self.sent.append((tensor, receivers))

    def note(self, constant: Constant) -> None:
        """See `Recorder`."""
        notes = self.rounds[-1].notes
        if isinstance(constant, Tensor) and not self.tracer.constant(constant):
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
            place = numbers(0).clone()
        (self.placed if by_row else self.varied).append((numbers, place))
        return place

    def vary(self, later: int, rows: int) -> None:
        """Writes the numbers that change.

        Args:
            later: Tokens since the recording.
            rows: Rows by which the cache has grown since then: less, where a step evicts what it appends.
        """
        for count, numbers in ((later, self.varied), (rows, self.placed)):
            for made, place in numbers:
                place.copy_(made(count))

    def refuse(self, failed: Tensor, failure: Condition) -> None:
        """See `Recorder`."""
        if len(self.failures) == _MOST_CHECKS:
            raise NotRecordable("a check", f"a recorded segment makes at most {_MOST_CHECKS} checks")
        self._inputs.failed[len(self.failures)] = failed
        self.failures.append(failure)
        self.rounds[-1].checks = len(self.failures)
