"""Memory of each role: the formula against what real runs took, and what it says of sizes nobody has run."""

from typing import Any

import pytest

from orchestrator.experiment.cells import Cell
from orchestrator.predict.memory import ROLES, Need, memory_needs, together
from orchestrator.records.store import RecordStore
from tests.helpers import samples
from tests.helpers.four import Four
from tests.helpers.paths import ROOT

FACTOR = 1.4
"""Between the formula and a process's peak."""

MODEL = "random:llama?layers=2&hidden=512&intermediate=1024&heads=8&kv_heads=2&vocab=16384&positions=131072"
WIDE_CACHE = "random:llama?layers=4&hidden=256&intermediate=512&heads=8&kv_heads=8&head_dim=256&vocab=1024"
"""Half a gigabyte of keys and values in a batch of four sequences of 512 tokens."""


def cell(**changes: Any) -> Cell:
    values: dict[str, Any] = {"model": MODEL, "engines": ["fss"], "policies": ["full"], "seq_lens": [64]}
    return samples.cell(**{**values, **changes})


def peaks(**changes: Any) -> dict[str, int]:
    return {role: need.peak for role, need in memory_needs(cell(**changes)).items()}


@pytest.mark.parametrize("folder", ["pays", "speedup"])
def test_committed_runs_took_what_the_formula_says(folder: str) -> None:
    needed: dict[tuple[str, int], int] = {}  # processes stay: the cell that reached a peak leaves it to later ones
    for record in RecordStore(ROOT / "docs/results" / folder).read():
        if record.cell.policy.name != "full" or record.cell.network.name != "lan":
            continue  # other policies hold less, and what a role needs is the same on every network
        for role, need in memory_needs(record.cell).items():
            reached = (role, record.parties[role].peak_rss_bytes)
            needed[reached] = max(needed.get(reached, 0), need.peak)
    for (role, measured), most in needed.items():
        assert 1 / FACTOR < most / measured < FACTOR, (role, most, measured)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "seq_len", "batch"), [(MODEL, 64, 1), (WIDE_CACHE, 512, 4)], ids=["weights", "caches of a batch"]
)
def test_a_small_run_takes_what_the_formula_says(model: str, seq_len: int, batch: int) -> None:
    of = cell(model=model, seq_lens=[seq_len], batch=[batch], new_tokens=1)
    job = {"model": model, "engine": "fss", "policy": {"name": "full"}, "prompt": {"random_tokens": True}}
    with Four() as four:
        results = four.run(job | {"seq_len": seq_len, "batch": batch, "new_tokens": 1})
    for role, need in memory_needs(of).items():
        result, _ = results[role]
        assert 0.8 < need.peak / result["peak_rss_bytes"] < 2, role  # above rather than below


def test_a_longer_prompt_takes_more_where_its_cache_is_kept() -> None:
    short, long = (peaks(seq_lens=[n]) for n in (1024, 131_000))
    assert all(long[role] > short[role] + 1e8 for role in ROLES)
    streamed = peaks(seq_lens=[131_000], policies=["streaming_llm"])
    assert streamed["client"] < long["client"]


def test_stored_randomness_is_on_disk_and_not_in_memory() -> None:
    stored, streamed = (memory_needs(cell(offline=how)) for how in ("stored", "streamed"))
    assert stored["server"].disk > 0 == streamed["server"].disk
    assert stored["server"].randomness == 0 < streamed["server"].randomness


def test_parties_of_the_plain_engine_are_bare_processes() -> None:
    needs = memory_needs(cell(engines=["plain"]))
    assert needs["client"] == needs["dealer"] == Need()
    assert needs["referee"].peak > needs["client"].peak


def test_only_a_party_that_computes_in_spu_has_shares_of_the_model_two_of_each_number_in_aby3() -> None:
    two, three = (memory_needs(cell(engines=[{"name": "spu", "protocol": p}])) for p in ("semi2k", "aby3"))
    assert two["dealer"] == Need()
    assert three["dealer"].weights == three["client"].weights == 2 * two["client"].weights > 0
    assert three["server"].loading > three["client"].loading > 0, "the server also has the weights themselves"


def test_peaks_of_roles_on_one_host_do_not_coincide() -> None:
    needs = [Need(weights=10, work=5), Need(weights=20, loading=7), Need()]
    assert together(needs) == sum(need.steady for need in needs) + 7
