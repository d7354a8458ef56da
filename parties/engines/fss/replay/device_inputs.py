"""The memory of recorded segments on a GPU: what each replay finds at the same place."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from parties.engines.fss.kernels.keystream import DeviceKeystream
from parties.engines.fss.randomness.frames import WORD_BYTES, FrameReader
from parties.engines.fss.randomness.streams import Stream
from parties.engines.fss.recording.memory import Arena
from parties.engines.fss.recording.tape import Tape
from parties.engines.fss.replay import graphs
from parties.engines.fss.replay.inputs import MOST_CHECKS, Drawn, Inputs
from parties.engines.fss.replay.pieces import Pieces
from parties.metering.meter import StageMeter

PIECE_BYTES = 1 << 27
COPY_BYTES = 1 << 22  # of what was dealt, at least, before a tape may wait for it: an event costs as much as a kernel
MOST_BYTES = 1 << 34  # a GPU that has less memory left refuses the recording


class DeviceInputs(Inputs):
    """See `Inputs`. The first graph of a segment expands the keystream; what was dealt is copied while graphs run.

    Args:
        device: A GPU.
        seed: Seed of the party's keystream.
        meter: Counts the time of kernels.
    """

    staged = keeps_rows = True
    most_bytes = MOST_BYTES

    def __init__(self, device: torch.device, seed: bytes, meter: StageMeter) -> None:
        make = partial(torch.empty, dtype=torch.uint8, device=device)
        self.streams, self.dealt = [Pieces(make, PIECE_BYTES)], Pieces(make, PIECE_BYTES)
        self.failed = graphs.pinned(torch.zeros(MOST_CHECKS, dtype=torch.bool))
        self.failed_array = self.failed.numpy()
        self.arena = Arena(device)
        self._keystream = DeviceKeystream(seed, device)
        self._place = torch.zeros(2, dtype=torch.int64, device=device)
        self._clock = graphs.KernelClock(meter.add_kernel_seconds)
        self._epoch = graphs.pinned(torch.zeros(2, dtype=torch.int64))
        self._frames: list[Tensor] = []
        self._copies = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._events: list[torch.cuda.Event] = []
        self._ends: list[int] = []
        self._awaited = self._there = 0
        self._rows = WeakTensorKeyDictionary()

    def place(self, numbers: Tensor) -> Tensor:
        """See `Inputs`; pinned."""
        return graphs.pinned(numbers)

    def recording(self, drawn: Drawn) -> Callable[..., Any]:
        """See `Inputs`."""
        return partial(graphs.GraphRecording, before=partial(self._expand_there, drawn), clock=self._clock)

    def fill(self, drawn: Drawn, streams: Sequence[Stream], frames: FrameReader | None, epoch: int) -> None:  # noqa: ARG002 - the device has its own
        """See `Inputs`."""
        self._epoch[0] = epoch
        self._copies.synchronize()
        self._frames.clear()
        self._ends.clear()
        self._awaited = self._there = 0
        if frames is not None:
            with torch.cuda.stream(self._copies):
                self._copy(drawn, frames)

    def steps(self, tapes: Sequence[Tape], drawn: Drawn) -> list[list[Callable[[], Any]]]:
        """See `Inputs`; a tape waits on the device for what was dealt."""
        before, steps = 0, list[list[Callable[[], Any]]]()
        for tape, wanted in zip(tapes, drawn.wanted, strict=True):
            steps.append([*([partial(self._await_copies, wanted)] if wanted > before else []), *tape.steps])
            before = wanted
        return steps

    def _copy(self, drawn: Drawn, frames: FrameReader) -> None:
        copied = 0
        for piece, size in zip(self.dealt.made, drawn.dealt, strict=False):
            ends = [wanted - copied for wanted in drawn.wanted if copied < wanted < copied + size]
            start = 0
            for end in (*ends, size):
                if end - start >= COPY_BYTES or end == size:
                    self._frames += frames.copy_to(piece[start:end])
                    self._mark(copied + end)
                    start = end
            copied += size

    def _mark(self, end: int) -> None:
        """Records an event after the copy that ends with this byte of all that was dealt."""
        if len(self._ends) == len(self._events):
            self._events.append(torch.cuda.Event())  # type: ignore[no-untyped-call]
        self._events[len(self._ends)].record(self._copies)
        self._ends.append(end)

    def _await_copies(self, wanted: int) -> None:
        while self._there < wanted:
            graphs.stream().wait_event(self._events[self._awaited])
            self._there = self._ends[self._awaited]
            self._awaited += 1

    def _expand_there(self, drawn: Drawn) -> None:
        first, own = 0, drawn.own[0]
        for piece, size in zip(self.streams[0].made, own, strict=False):
            self._place.copy_(self._epoch, non_blocking=True)
            if first:
                self._place[1].fill_(first // WORD_BYTES)
            self._keystream.fill(self._place, piece[:size].view(torch.int64))
            first += size

    def take(self, moves: Sequence[tuple[Tensor, Tensor]]) -> None:
        """See `Inputs`; what lasts is at its place already."""
        super().take([(here, there) for here, there in moves if here.data_ptr() != there.data_ptr()])
