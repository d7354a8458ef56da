"""A GPU whose memory is full, for real; `test_runner.py` tests the cell's record."""

import pytest
import torch

from orchestrator.run.actors import describe
from parties.roles.reports import PartyProgress
from tests.helpers.needs import needs

pytestmark = needs("gpu")


def test_a_gpu_without_free_memory_reports_torchs_out_of_memory_error() -> None:
    free, total = torch.cuda.mem_get_info()
    with pytest.raises(RuntimeError) as caught:
        torch.empty(free, dtype=torch.uint8, device="cuda"), torch.empty(total, dtype=torch.uint8, device="cuda")
    error = describe(
        caught.value, "client", PartyProgress(role="client", state="decode", stage="softmax", sent_bytes=7)
    )
    assert error["status"] == "oom"
    assert "out of memory: use a smaller model or seq_len" in error["message"]
    assert (error["role"], error["stage"], error["sent_bytes"]) == ("client", "softmax", 7)
    torch.empty(1, device="cuda")  # the next cell's can be had
