"""Operations on meta tensors give the shapes of real ones."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from parties.engines.fss.cost.meta_tensors import MetaTensors, meta_tensor

SIDES = st.sampled_from([1, 3])
OPERATIONS: dict[str, Callable[[Any, Any], Any]] = {
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: a - b,
    "subtract from a number": lambda a, _: 1 - a,
    "multiply": lambda a, b: a * b,
    "negate": lambda a, _: -a,
    "shift": lambda a, b: (a << 3) >> b,
    "low bits": lambda a, _: a & 7,
    "maximum": torch.maximum,
    "join": lambda a, b: torch.cat([a.expand(3, 3), b.expand(3, 3)], 1),
    "stack": lambda a, b: torch.stack([a.expand(3, 3), b.expand(3, 3)]),
    "product": lambda a, b: a.expand(3, 3) @ b.expand(3, 3),
    "rows": lambda a, _: a[torch.tensor([0, 0])],
    "sum": lambda a, _: a.sum(0, keepdim=True),
}


@settings(deadline=None)
@given(st.tuples(SIDES, SIDES), st.tuples(SIDES, SIDES), st.sampled_from(sorted(OPERATIONS)))
def test_shapes_are_those_of_real_tensors(first: tuple[int, int], second: tuple[int, int], name: str) -> None:
    real = OPERATIONS[name](torch.ones(first, dtype=torch.int64), torch.ones(second, dtype=torch.int64))
    with MetaTensors():
        for other in (meta_tensor(second), torch.ones(second, dtype=torch.int64)):
            found = OPERATIONS[name](meta_tensor(first), other)
            assert (found.shape, found.dtype, found.is_meta) == (real.shape, real.dtype, True)


def test_public_tensors_among_themselves_stay_real() -> None:
    with MetaTensors():
        total: Tensor = torch.ones(3) + torch.ones(3)
    assert total.tolist() == [2.0, 2.0, 2.0]


def test_outside_the_mode_a_meta_tensor_is_not_combined_with_others() -> None:
    with pytest.raises(RuntimeError):
        _ = meta_tensor((3,)) + torch.ones(3, dtype=torch.int64)
