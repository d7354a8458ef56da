"""Memory by role in `cost` and `run --dry-run`, on hosts and on GPUs."""

import pytest
from rich.console import Console

from orchestrator.cli import memory_table
from orchestrator.cli.memory_table import memory_table as table_of
from orchestrator.cli.memory_table import shortfalls
from parties.metering.cgroup import Memory
from parties.metering.nvml import Card, Cards
from tests.helpers import samples

CELL = samples.cell(model="random:llama-2-7b", engines=["fss"], seq_lens=[1024], gpu=True)


def test_a_cell_on_gpus_has_a_row_for_hosts_and_one_for_gpus() -> None:
    console = Console(width=200)
    with console.capture() as shown:
        console.print(table_of([CELL]))
    host, gpu = (line.split() for line in shown.get().splitlines() if line.split()[:1] == ["fss"])
    assert host[3] == "host"
    assert float(host[4]) < 10  # the client's, through which nothing large passes
    assert gpu[3] == "GPU"
    assert 54 < float(gpu[4]) < 65


def test_a_gpu_that_is_too_small_is_named_with_its_shortfall(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_table, "memory", lambda: Memory(10**13, 10**13, "the host"))
    monkeypatch.setattr(memory_table, "own_cards", lambda: Cards((Card(0, "GPU-a", "Fake", 24 * 10**9, 24 * 10**9),)))
    (short,) = shortfalls([CELL])
    assert "the largest GPU here has 24.0 GB free, and a party needs" in short
    monkeypatch.setattr(memory_table, "own_cards", lambda: Cards(problem="no driver"))
    assert shortfalls([CELL]) == []
