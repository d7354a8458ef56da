"""Recordings for the tape machine of a GPU that run in Triton's interpreter, on memory of the host."""

from collections.abc import Callable

import torch
from torch import Tensor

from parties.engines.fss.arithmetic import ring
from parties.engines.fss.kernels import tape_machine
from parties.engines.fss.recording.launches import launches
from parties.engines.fss.recording.memory import Arena, Buffer, View, plan
from parties.engines.fss.recording.notes import Note
from parties.engines.fss.recording.tape import place_kept, readable
from parties.engines.fss.recording.tracer import Tracer
from parties.engines.fss.replay import graphs
from tests.helpers.fused import FUSED


class _Host(graphs._Memory):
    """Memory that kernels read and write where it is, as they do pinned memory."""

    def _place(self, buffer: Buffer) -> tuple[torch.UntypedStorage, int]:
        return super()._place(buffer) if buffer.storage is None else (buffer.storage, 0)


def replayed(program: Callable[[], list[Tensor]], change: Callable[[], None]) -> list[Tensor]:
    """Records a program, changes its inputs, and runs the recording; returns its results."""

    def make(tapes: list[list[Note]], keep: list[tuple[View, Tensor]], arena: Arena) -> list[Tensor]:
        launched = [launch for tape in tapes for launch in launches(tape)]
        kept = torch.empty(place_kept([view.buffer for view, _ in keep]), dtype=torch.uint8)
        arena.reserve(plan([launch.buffers for launch in launched]))
        memory, results = _Host(kept, arena.memory), [readable(view, tensor, kept) for view, tensor in keep]
        change()
        for launch in launched:
            rows = torch.tensor([memory.row(note) for note in launch.notes])  # type: ignore[arg-type]
            tape_machine.run(rows, launch.programs, wrong)
        return results

    wrong = torch.zeros(1, dtype=torch.int64)
    with Tracer() as tracer:
        traced = program()
    found: list[Tensor] = tracer.finish(traced, Arena(), make)
    assert not wrong.any()
    return found


def compare_fused(*shape: int) -> None:
    """Compares each fused instruction with what torch computes, on random numbers of a shape."""
    x, y, z = (torch.zeros(shape, dtype=torch.int64) for _ in range(3))
    flags, edge = torch.zeros(2, dtype=torch.bool), 2**63 - 2**62

    def program() -> list[Tensor]:
        shifted = [ring.checked_shift(a, 7, edge, flags[k : k + 1]) for k, a in enumerate((x + y, z & 255))]
        return shifted + [f(a, y, c) for f in FUSED.values() for a, c in ((x, z), (x[..., :1], z[..., :1]))]

    def change() -> None:
        flags.zero_()
        for k, tensor in enumerate((x, y, z)):
            tensor.copy_(torch.randint(-(2**63), 2**63 - 1, shape, generator=torch.Generator().manual_seed(k)))
        x.view(-1)[-1], y.view(-1)[-1] = edge, 0

    found = replayed(program, change)
    assert flags.tolist() == [True, False]
    for result, expected in zip(found, program(), strict=True):
        assert torch.equal(result, expected)
