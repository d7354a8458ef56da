"""Fewer instructions compute the same: each rewriting by itself, and what must not be rewritten."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from parties.engines.fss.arithmetic import ring
from parties.engines.fss.recording.tracer import Tracer
from tests.helpers.fused import FUSED
from tests.parties.engines.fss.recording.test_tracer import check

Program = Callable[[], list[Tensor]]


def names(program: Program, inputs: list[Tensor]) -> list[str]:
    """Checks a program on other inputs; returns its instructions."""
    return [name for tape in check(program, inputs).tapes for name in tape.names]


@pytest.mark.parametrize("shape", [(1,), (33,), (3, 5), (2, 3, 40)])
@pytest.mark.parametrize("name", FUSED)
def test_a_fused_instruction_computes_what_two_do(name: str, shape: tuple[int, ...]) -> None:
    x, y, z = (torch.zeros(shape, dtype=torch.int64) for _ in range(3))
    for first, last in ((x, z), (x[..., :1].expand(shape), z), (x, z[..., :1])):
        found = names(lambda first=first, last=last: [FUSED[name](first, y, last)], [x, y, z])
        assert [found for found in found if "copy" not in found] == [name]


@pytest.mark.parametrize("bits", [1, 30, 62])
@pytest.mark.parametrize("added", [False, True])
def test_a_checked_shift_flags_numbers_near_the_edge_of_the_ring(bits: int, added: bool) -> None:
    edge = 2**63 - 2**bits
    x, flag = torch.zeros(7, dtype=torch.int64), torch.zeros(1, dtype=torch.bool)
    with Tracer() as tracer:
        shifted = ring.checked_shift(x + x if added else x, 16, edge, flag)
    recording = tracer.finish([shifted])
    assert recording.tapes[0].names == ["checked_shift"]
    for number in (0, 1, -1, edge - 2, edge, edge - 1, -edge, -edge - 1, -edge - 2, 2**63 - 1, -(2**63)):
        x.zero_()
        x[3] = number // 2 if added else number
        flag.zero_()
        recording.tapes[0].run()
        public = 2 * x if added else x
        assert torch.equal(recording.tensors[0], public >> 16)
        assert flag.item() == bool(((public < -edge) | (public >= edge)).any())
        interpreted = torch.zeros(1, dtype=torch.bool)
        assert torch.equal(ring.checked_shift(public, 16, edge, interpreted), public >> 16)
        assert interpreted.item() == flag.item()


def test_operations_that_change_nothing_repeat_others_or_are_not_used_vanish() -> None:
    x, y = torch.zeros(6, dtype=torch.int64), torch.zeros(6, dtype=torch.int64)

    def program() -> list[Tensor]:
        _unused = (x * y).sum()
        kept = (x * 1 + 0 >> 0) - 0
        return [torch.maximum(kept - y, y) ^ (x - y)]

    assert names(program, [x, y]) == ["sub_64", "max_64", "xor_64"]


def test_a_copy_is_read_where_it_came_from_and_written_where_it_goes() -> None:
    x, place = torch.zeros(3, 4, dtype=torch.int64), torch.zeros(3, 8, dtype=torch.int64)

    def program() -> list[Tensor]:
        place[:, 2:6].copy_(x.clone() ^ 5)
        return [(x & 3).clone(), torch.cat([x, x]).clone()]

    assert names(program, [x, place]) == ["xor_64", "and_64", "copy_64", "copy_64"]


def test_a_copy_keeps_what_is_overwritten_later() -> None:
    x, y = torch.zeros(5, dtype=torch.int64), torch.zeros(5, dtype=torch.int64)

    def program() -> list[Tensor]:
        before, product, repeated = x.clone(), x * y, x ^ y
        x.add_(y)
        return [before & y, product - y, repeated | (x ^ y)]

    check(program, [x, y])


def test_what_the_host_changes_between_tapes_is_read_in_its_tape() -> None:
    x = torch.zeros(4, dtype=torch.int64)
    with Tracer() as tracer:
        copied, product, first = x.clone(), x * 3, x ^ 7
        tracer.cut()
        results = [copied & 5, product + x, first | (x ^ 7)]
    recording = tracer.finish(results)
    x.fill_(1)
    recording.tapes[0].run()
    x.fill_(2)
    recording.tapes[1].run()
    assert [int(result[0]) for result in recording.tensors] == [1, 5, 7]


def test_a_result_that_is_read_elsewhere_is_not_fused_away() -> None:
    x, y = torch.zeros(5, dtype=torch.int64), torch.zeros(5, dtype=torch.int64)

    def program() -> list[Tensor]:
        product = x * y
        return [product - y, product]

    assert names(program, [x, y]) == ["mul_64", "sub_64"]
