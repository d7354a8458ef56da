"""Tapes: memory, number of Python calls, and comparison."""

from collections.abc import Sequence

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from parties.engines.fss.recording.memory import Arena, Buffer, Kind, plan
from parties.engines.fss.recording.tape import Recording
from parties.engines.fss.recording.tracer import Tracer

ELEMENTS = 1_000
BYTES = 8 * ELEMENTS


def chain(x: Tensor, steps: int, arena: Arena | None = None) -> Recording:
    with Tracer() as tracer:
        for k in range(steps):
            x = x * 3 + k
    return tracer.finish([x], arena)


@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=4), max_size=20), st.data())
def test_buffers_in_use_at_the_same_time_never_overlap(uses: list[list[int]], data: st.DataObject) -> None:
    buffers = [Buffer(Kind.PLANNED, data.draw(st.integers(0, 300))) for _ in range(10)]
    size = plan([[buffers[k] for k in step] for step in uses])
    spans = {k: [i for i, step in enumerate(uses) if k in step] for k in range(10)}
    for a, first in spans.items():
        for b, second in spans.items():
            if a < b and first and second and first[0] <= second[-1] and second[0] <= first[-1]:
                low, high = sorted([buffers[a], buffers[b]], key=lambda buffer: buffer.offset)
                assert low.offset + low.size <= high.offset or 0 in (low.size, high.size)
        assert not first or buffers[a].offset + buffers[a].size <= size


def test_memory_does_not_grow_with_the_length_of_a_tape() -> None:
    x = torch.zeros(ELEMENTS, dtype=torch.int64)
    short, long = chain(x, 5), chain(x, 50)
    assert long.memory_bytes - short.memory_bytes < 90 * 200  # programs and scalars alone
    assert short.memory_bytes < 5 * BYTES


def test_recordings_share_an_arena_that_grows_and_keep_their_results_apart() -> None:
    arena, x = Arena(), torch.zeros(ELEMENTS, dtype=torch.int64)
    small = chain(x[:10], 4, arena)
    small.tapes[0].run()
    large = chain(x, 4, arena)  # the arena moves
    x.fill_(2)
    for recording in (small, large, small):
        recording.tapes[0].run()
    expected = 2
    for k in range(4):
        expected = expected * 3 + k
    for recording in (small, large):
        assert recording.tensors[0].eq(expected).all()
    assert large.memory_bytes < BYTES + 4_000  # its result, and none of the arena


def test_adjacent_instructions_are_one_call() -> None:
    x = torch.zeros(5, 3, dtype=torch.int64)
    with Tracer() as tracer:
        y = (x + 1) * 2
        z = y.argsort(1) + y
        total = z.sum()
    assert tracer.finish([total]).tapes[0].calls == 3


def tape_of(x: Tensor, constants: Sequence[int], shift: int, offset: int = 0) -> Recording:
    with Tracer() as tracer:
        y = (x[offset:4] >> shift) * torch.tensor(constants)[offset:]
    return tracer.finish([y])


def test_a_tape_equals_another_of_the_same_program_alone() -> None:
    x = torch.arange(5)
    base = tape_of(x, [1, 2, 3, 4], 3).tapes[0]
    assert base.same_program(tape_of(x, [1, 2, 3, 4], 3).tapes[0])
    assert base.same_program(tape_of(x.clone(), [1, 2, 3, 4], 3).tapes[0])  # the same content
    for other in (
        tape_of(x, [1, 2, 3, 5], 3), tape_of(x, [1, 2, 3, 4], 4), tape_of(x, [1, 2, 3, 4], 3, 1),
        tape_of(x + 1, [1, 2, 3, 4], 3),
    ):  # fmt: skip
        assert base.difference(other.tapes[0]) is not None
