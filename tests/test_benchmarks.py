"""Every script of benchmarks/ runs to its end, at a toy size; the output is not checked."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT
from tests.helpers.waiting import PATIENCE_S

SCRIPTS = ROOT / "benchmarks"

pytestmark = pytest.mark.slow
TOYS = {
    "drafts": ["random:tiny-llama", "examples/prompts/article.txt", "--tokens", "40", "--new", "8"],
    "crypten_draws": ["--numbers", "1000"],
    "families": ["--families", "gemma2", "--engines", "fss", "--new-tokens", "1"],
    "fss_advantage": ["examples/prompts/article.txt", "--tokens", "2", "--model", "random:tiny-llama"],
    "fss_retries": ["--tokens", "64", "--prompt", "16"],
    "exporter": ["--pairs", "2"],
    "fss_compute": ["--layers", "1", "--tokens", "16", "--repeats", "1"],
    "fss_comparisons": ["--seconds", "0.01"],
    "fss_gates": ["--tokens", "64"],
    "fss_set_up": ["random:tiny-llama"],
    "fss_steps": ["--shape", "tiny", "--tokens", "16", "--steps", "4"],
    "fss_pivots": [],
    "fss_products": ["--columns", "64"],
    "fss_repeats": ["--tokens", "64"],
    "latency": ["docs/results/networks"],
    "links": ["--backends", "proxy", "--networks", "lan", "--seconds", "0.05"],
    "soak": ["--seconds", "1", "--seed", "3", "--out", "NEW"],
    "memory": ["docs/results/families/llama"],
    "results": ["docs/results/models.md", "--check"],
    "referee_prefill": ["random:tiny-llama", "--tokens", "70", "--threads", "1"],
    "targets": ["--tokens", "64", "--longer", "128"],
    "transport": ["--rounds", "2"],
}
"""Arguments of each script; its counts are exact at any size, its times mean nothing here. NEW: a new folder."""
ELSEWHERE = {
    "fss_alone": "is a part of fss_steps and measures on a GPU: python benchmarks/fss_steps.py --device cuda",
    "submit": "needs a Ray cluster with its dashboard: ray start --head, then python benchmarks/submit.py --help",
    "training_text": "needs apt-get, dpkg-deb and a mirror of Debian 12: python benchmarks/training_text.py FOLDER",
}
"""Why a script is not run here, and how it is."""


def names() -> list[str]:
    """The scripts, and the packages that are run as one."""
    found = [path.stem for path in SCRIPTS.glob("*.py")] + [path.parent.name for path in SCRIPTS.glob("*/__main__.py")]
    return sorted(set(found) - {"__init__"})


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.ray if n in ("families", "soak") else ()) for n in names()]
)
def test_a_benchmark_runs(name: str, tmp_path: Path) -> None:
    if name in ELSEWHERE:
        pytest.skip(ELSEWHERE[name])
    script = SCRIPTS / f"{name}.py"
    called = [str(script)] if script.exists() else ["-m", f"benchmarks.{name}"]
    call = [sys.executable, *called, *(str(tmp_path / "new") if word == "NEW" else word for word in TOYS[name])]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        call, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip(), "it printed nothing"
