"""Loading of the server's matrices."""

import pytest
import torch

from parties.engines.fss.arithmetic import matrices, ring
from parties.metering.meter import StageMeter

LOADED = "mpcbench_loaded_ratio"


@pytest.mark.parametrize("shape", [(5, 7), (1, 12), (12, 1), (40, 3)])
def test_a_matrix_is_encoded_in_chunks_as_it_is_at_once(
    shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(matrices._CHUNK, "cpu", 20)
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    found = matrices.encoded(weight, torch.device("cpu"))
    assert torch.equal(found, ring.encode(weight.T))
    assert found.is_contiguous()


def test_the_meter_shows_the_share_of_the_matrices_that_is_loaded() -> None:
    meter, shapes = StageMeter(), {"embed": (6, 4), "norm": (4,), "qkv": (4, 12), "positions": (9, 4)}
    shares = [(name, meter.numbers()[LOADED]) for name, _ in matrices.matrices_in(shapes, meter)]
    assert shares == [("embed", 0), ("qkv", pytest.approx(1 / 3))]
    assert LOADED not in meter.numbers()
