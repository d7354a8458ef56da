"""A tape does what the traced program does, on the numbers that its inputs hold now."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from parties.engines.fss.kernels.call import call
from parties.engines.fss.randomness import bit_packing
from parties.engines.fss.recording.tape import Recording
from parties.engines.fss.recording.tracer import NotRecordable, Tracer

INT64 = st.integers(-(2**63), 2**63 - 1)
SCALARS = st.one_of(st.integers(-3, 70), INT64)
SHAPES = st.sampled_from([(), (1,), (7,), (3, 5), (4, 1, 6), (2, 3, 4), (0, 3)])
BINARY: list[Callable[[Any, Any], Tensor]] = [
    torch.add, torch.sub, torch.mul, torch.bitwise_and, torch.bitwise_or, torch.bitwise_xor, torch.maximum,
    torch.minimum, torch.eq, torch.ne, torch.lt, torch.le, torch.gt, torch.ge, lambda a, b: a << (b & 63),
    lambda a, b: a >> b, lambda a, b: torch.sub(a, b, alpha=3), lambda a, b: torch.where(a > b, a, b),
    lambda a, b: torch.cat([a, b.expand_as(a)], -1) if a.dim() else a + b,
    lambda a, b: torch.stack([a, b.expand_as(a)], 0), lambda a, b: a.masked_fill(b > 0, 5),
    lambda a, b: torch.floor_divide(a, 1 + (b & 7)), lambda a, b: a % (1 + (b & 7)),
]  # fmt: skip
UNARY: list[Callable[[Tensor], Tensor]] = [
    torch.neg, torch.abs, torch.bitwise_not, torch.clone, lambda a: a.to(torch.uint8).long(),
    lambda a: a.bool().long(), lambda a: a.sum(), lambda a: a.sum(0, keepdim=True), lambda a: a.sum(-1),
    lambda a: a.cumsum(-1), lambda a: a.amax() if a.numel() else a, lambda a: a.amin(-1) if a.numel() else a,
    lambda a: a.flip(0) if a.dim() else a, lambda a: torch.stack(a.aminmax()) if a.numel() else a,
    lambda a: (a > 3).any(-1).long(), lambda a: (a > 3).all().long(), lambda a: (a > 3).cumsum(-1),
    lambda a: (a > 3).sum(), lambda a: (~(a > 3) & (a < 9)).long(), lambda a: a.clamp(-4, 9), lambda a: a.reshape(-1),
    lambda a: a.transpose(0, -1) if a.dim() else a, lambda a: a[..., None].expand(*a.shape, 3),
    lambda a: a[..., 1:] if a.dim() else a, lambda a: a.reshape(-1)[::2],
    lambda a: a.t().contiguous() if a.dim() == 2 else a, lambda a: a.repeat(2, *[1] * a.dim()),
    lambda a: torch.nn.functional.pad(a, (1, 2)) if a.dim() else a,
    lambda a: a.gather(-1, a.abs() % a.shape[-1]) if a.dim() and a.numel() else a,
    lambda a: a.sort(-1).values if a.dim() else a, lambda a: 7 - a, lambda a: a.unsqueeze(-1) * torch.tensor([2, 5]),
    lambda a: a.to(torch.uint8).__xor__(255).__rshift__(3).long(), lambda a: torch.arange(a.numel()) + a.reshape(-1),
    lambda a: a[torch.tensor([1, -1])] if a.dim() and a.shape[0] > 1 else a,
    lambda a: a[torch.tensor([[1], [0]]), torch.tensor([0, -1])] if a.dim() > 1 and a.numel() > 9 else a,
    lambda a: a[:, torch.tensor([2, 0, 1])] if a.dim() > 1 and a.shape[1] > 2 else a,
]  # fmt: skip


def fill(tensors: list[Tensor], seed: int) -> None:
    """Other numbers in the same memory: small ones, large ones and the extremes."""
    generator = torch.Generator().manual_seed(seed)
    for tensor in tensors:
        small = torch.randint(-9, 9, tensor.shape, generator=generator)
        large = torch.randint(-(2**63), 2**63 - 1, tensor.shape, generator=generator)
        tensor.copy_(torch.where(torch.rand(tensor.shape, generator=generator) < 0.5, small, large))


def recorded(program: Callable[[], list[Tensor]]) -> Recording:
    with Tracer() as tracer:
        results = program()
    return tracer.finish(results)


def check(program: Callable[[], list[Tensor]], inputs: list[Tensor]) -> Recording:
    """Replays on other inputs, twice, against the program itself; inputs that the program writes count as results."""
    recording = recorded(program)
    for seed in (1, 2):
        fill(inputs, seed)
        before = [tensor.clone() for tensor in inputs]
        expected = [result.clone() for result in program()] + [tensor.clone() for tensor in inputs]
        for tensor, old in zip(inputs, before, strict=True):
            tensor.copy_(old)
        for tape in recording.tapes:
            tape.run()
        for found, wanted in zip(recording.tensors + inputs, expected, strict=True):
            assert found.dtype == wanted.dtype
            assert torch.equal(found, wanted)
    return recording


@given(
    shape=SHAPES, steps=st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99), SCALARS), min_size=1, max_size=8),
    other=st.sampled_from(["tensor", "row", "scalar"]),
)  # fmt: skip
def test_a_random_program_of_operations(shape: tuple[int, ...], steps: list[tuple[int, int, int]], other: str) -> None:
    x, y = torch.zeros(shape, dtype=torch.int64), torch.zeros(shape, dtype=torch.int64)

    def program() -> list[Tensor]:
        results = [x]
        for first, second, scalar in steps:
            results.append(UNARY[first % len(UNARY)](results[second % len(results)]).long())
            right: Any = {"tensor": y, "row": y[..., :1] if y.dim() else y, "scalar": torch.tensor(scalar)}[other]
            results.append(BINARY[second % len(BINARY)](x, right).long())
        return results[1:]

    check(program, [x, y])


@given(places=st.lists(st.integers(0, 8), min_size=1, max_size=6))
def test_writes_in_place_through_views(places: list[int]) -> None:
    cache, x = torch.zeros(4, 6, dtype=torch.int64), torch.zeros(6, dtype=torch.int64)
    order = torch.tensor([3, 1])

    def program() -> list[Tensor]:
        made, table = torch.zeros(4, 6, dtype=torch.int64), torch.tensor([[1, 2, 3]] * 4)
        before = table + 0 * cache[:, :3]
        writes: list[Callable[[], Any]] = [
            lambda: cache[2].copy_(x), lambda: made.t()[1:3].add_(cache[:, 4]), lambda: cache[:, 1:3].mul_(3),
            lambda: made.view(2, 12)[1].fill_(7), lambda: table.bitwise_xor_(cache[:, :3]),
            lambda: made.index_put_((order,), cache[:2]), lambda: cache.index_add_(1, order, made[:, :2]),
            lambda: made.scatter_(1, cache[:, :2] & 3, x[:2].expand(4, 2)), lambda: cache[0].zero_(),
        ]  # fmt: skip
        for place in places:
            writes[place]()
        return [made, table, before, made.sum(0)]

    check(program, [cache, x])


def test_tapes_are_cut_where_the_program_says() -> None:
    x = torch.zeros(5, dtype=torch.int64)
    with Tracer() as tracer:
        y = x + 1
        tracer.cut()
        z = y * x
        assert tracer.cut() == 1
    recording = tracer.finish([z])
    first, second = recording.tapes
    x.fill_(4)
    first.run()
    x.fill_(10)
    second.run()
    assert recording.tensors[0].tolist() == [50] * 5


def test_an_index_outside_its_dimension_is_refused_by_a_replay() -> None:
    x, index = torch.arange(5), torch.tensor([4, 0])
    recording = recorded(lambda: [x[index]])
    index[0] = 5
    with pytest.raises(IndexError, match="outside its dimension"):
        recording.tapes[0].run()


def doubled(numbers: np.ndarray[Any, Any], twice: np.ndarray[Any, Any], factor: int) -> None:
    twice[...] = numbers * factor


def test_a_kernel_gets_arrays_over_the_same_places() -> None:
    x = torch.zeros(4, 3, dtype=torch.int64)

    def program() -> list[Tensor]:
        twice = torch.zeros(3, 4, dtype=torch.int64)
        call(doubled, (x + 1).t(), twice, 2)
        return [twice + 1]

    assert check(program, [x]).tapes[0].calls == 3  # the machine, the kernel, the machine


@given(st.integers(0, 40))
def test_bits_are_packed_and_unpacked_without_a_call(count: int) -> None:
    x = torch.zeros(count, dtype=torch.int64)

    def program() -> list[Tensor]:
        packed = bit_packing.pack((x & 1).to(torch.uint8))
        return [packed, bit_packing.unpack(packed ^ 77, (count,))]

    assert sum(tape.calls for tape in check(program, [x]).tapes) <= 1


def test_a_kernel_that_returns_something_is_refused() -> None:
    with pytest.raises(TypeError, match="returned"):
        call(np.sum, torch.ones(2))


@pytest.mark.parametrize(
    "operation",
    [
        lambda x: int(x[0]), lambda x: x.tolist(), lambda x: x.numpy(), torch.nonzero, lambda x: x[x > 0],
        lambda x: torch.equal(x, x), lambda x: torch.randint_like(x, 9), lambda x: bool((x > 0).any()), torch.unique,
    ],
)  # fmt: skip
def test_operations_that_hand_data_to_python_are_not_recordable(operation: Callable[[Tensor], Any]) -> None:
    x = torch.arange(3)
    with Tracer(), pytest.raises(NotRecordable, match="cannot be recorded"):
        operation(x + 1)


def test_constants_are_computed_while_tracing() -> None:
    x = torch.zeros(3, dtype=torch.int64)

    def program() -> list[Tensor]:
        angles = torch.tensor([0.5, 1.5]).double().cos()
        assert int(torch.arange(4).sum()) == 6  # known, whatever the inputs
        return [x * (angles * 2.0**16).round().long().sum()]

    assert check(program, [x]).tapes[0].names == ["mul_64"]


def test_what_runs_while_paused_is_not_recorded() -> None:
    x = torch.zeros(2, dtype=torch.int64)
    with Tracer() as tracer:
        y = x + 1
        with tracer.paused():
            received = torch.full((2,), int(y[0]))
        z = y + received
    recording = tracer.finish([z])
    x.fill_(5)
    received.fill_(100)
    recording.tapes[0].run()
    assert recording.tensors[0].tolist() == [106, 106]
