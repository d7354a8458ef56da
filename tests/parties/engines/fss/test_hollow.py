"""Tensors without elements have the shapes that real ones would have, and nobody pays for them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from parties.engines.fss.cost import predict
from parties.engines.fss.hollow import Hollow, HollowSource, hollow
from parties.engines.fss.source import DealerSource
from parties.meter import StageMeter
from parties.models.spec import ModelSpec
from parties.policies import Full

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


@given(st.tuples(SIDES, SIDES), st.tuples(SIDES, SIDES), st.sampled_from(sorted(OPERATIONS)))
def test_shapes_are_those_of_real_tensors(first: tuple[int, int], second: tuple[int, int], name: str) -> None:
    real = OPERATIONS[name](torch.ones(first, dtype=torch.int64), torch.ones(second, dtype=torch.int64))
    with Hollow():
        for other in (hollow(second), torch.ones(second, dtype=torch.int64)):
            found = OPERATIONS[name](hollow(first), other)
            assert (found.shape, found.dtype, found.is_meta) == (real.shape, real.dtype, True)


def test_public_tensors_among_themselves_stay_real() -> None:
    with Hollow():
        total: Tensor = torch.ones(3) + torch.ones(3)
    assert total.tolist() == [2.0, 2.0, 2.0]


def test_outside_of_it_a_hollow_tensor_is_no_operand() -> None:
    with pytest.raises(RuntimeError):
        _ = hollow((3,)) + torch.ones(3, dtype=torch.int64)


def test_its_randomness_costs_what_the_dealers_costs() -> None:
    frames: dict[str, list[int]] = {"client": [], "server": []}
    source = HollowSource(StageMeter(), frames["client"].append, frames["server"].append)
    secrets: list[str] = []

    def secret() -> Any:
        secrets.append("asked for")

    source.begin(1)
    source.mask((1000,))
    source.shared((100, 3), secret)
    source.shared_bits((17,), secret)
    source.told((5, 16), secret)
    source.flush()
    assert frames == {"client": [8 + 5 * 16], "server": [8 + 8 * 300 + 3 + 5 * 16]}
    assert not secrets
    assert source.drawn.size == 8 * 1300 + 3
    assert isinstance(source, DealerSource)


def test_long_material_is_cut_into_frames() -> None:
    frames: list[int] = []
    source = HollowSource(StageMeter(), frames.append, frames.append)
    source.begin(1)
    source.shared((2**17 + 1,), lambda: torch.empty(0))
    source.flush()
    assert frames == [8 + 2**20, 8 + 8]


def test_a_model_that_fits_no_machine_is_predicted() -> None:
    spec = ModelSpec(
        family="llama", n_layers=1, hidden=2**15, n_heads=256, n_kv_heads=256, head_dim=128, intermediate=2**20,
        vocab=2**20, max_positions=2**20, norm_eps=1e-5, activation="silu", tied=True,
    )  # fmt: skip
    prediction = predict(spec, Full(), seq_len=2**12, new_tokens=1)
    assert prediction.work.weight_bytes > 2**40
    assert prediction.decode.total("client", "online").sent_bytes > 256 * 2**12 * 8


def test_zeros_of_the_randomness_take_no_memory() -> None:
    source = HollowSource(StageMeter(), lambda _: None, lambda _: None)
    octets, _ = source.shared_octets((2**20, 2**20), lambda: np.empty(0, np.uint8))
    assert octets.nbytes == 2**40
    assert octets.base is not None
