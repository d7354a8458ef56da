"""Every example runs: as it is, but for a tiny model, one short prompt and bare links."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from orchestrator.cli.main import app
from orchestrator.experiment.cells import expand
from orchestrator.experiment.experiment import load_experiment
from orchestrator.records.store import RecordStore
from orchestrator.run.ray_session import ray_session
from tests.helpers.commands import quoted, refusal
from tests.helpers.needs import needs
from tests.helpers.paths import ROOT

EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
STUDIES = [path for path in EXAMPLES if "tasks" in yaml.safe_load(path.read_text())]
EXPERIMENTS = [path for path in EXAMPLES if path not in STUDIES]
WITH_SPU = [path for path in EXPERIMENTS if load_experiment(path).engines[-1].name == "spu"]
TOY = {"model": "random:tiny-llama", "seq_lens": [24], "networks": ["none"], "new_tokens": 1, "repeats": 1}
TOY_STUDY = {
    "model": "random:llama?layers=1&hidden=16&heads=2&kv_heads=1&intermediate=16&vocab=256&positions=2048",
    "lengths": [300], "budgets": [0.25], "samples": 1, "continuation": 2,
}  # fmt: skip


def name(path: Path) -> str:
    return path.stem


def toy(path: Path, folder: Path, changes: dict[str, Any]) -> Path:
    """A copy whose prompt files are where they were, seen from it."""
    shutil.copytree(path.parent, folder, dirs_exist_ok=True)
    content = yaml.safe_load(path.read_text()) | changes
    content.pop("exclude", None)  # names lengths that the copy lacks
    copy = folder / "toy.yaml"
    copy.write_text(yaml.safe_dump(content))
    return copy


@pytest.fixture(scope="module")
def ray() -> Iterator[None]:
    """One Ray for all of them."""
    with ray_session(None):
        yield


@pytest.mark.ray
@pytest.mark.usefixtures("ray")
@pytest.mark.parametrize(
    "path", [pytest.param(path, marks=[needs("spu")] * (path in WITH_SPU)) for path in EXPERIMENTS], ids=name
)
def test_an_experiment_runs(path: Path, tmp_path: Path) -> None:
    fewer = {"policies": ["full"], "warmup": 0} if path in WITH_SPU else {}  # each program of SPU's is compiled
    file, out = toy(path, tmp_path, TOY | fewer), tmp_path / "out"
    engines = [str(engine) for engine in load_experiment(file).engines]
    wanted = engines if path.stem == "quickstart" else engines[-1:]  # an engine's parties take seconds to start
    done = CliRunner().invoke(app, ["run", str(file), "--out", str(out), "--only", f"engine={','.join(wanted)}"])
    assert done.exit_code == 0, done.output
    records = RecordStore(out).read()
    assert {record.status for record in records} == {"ok"}
    assert {str(record.cell.engine) for record in records} == set(wanted)
    assert (out / "report.html").exists()


@pytest.mark.slow
@pytest.mark.parametrize("path", STUDIES, ids=name)
def test_a_study_runs(path: Path, tmp_path: Path) -> None:
    file, out = toy(path, tmp_path, TOY_STUDY), tmp_path / "out"
    done = CliRunner().invoke(app, ["eval", str(file), "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert (out / "report.md").exists()


@pytest.mark.parametrize("path", EXAMPLES, ids=name)
def test_its_header_quotes_the_command_that_runs_it(path: Path) -> None:
    commands = quoted(path.read_text())
    assert commands, "the header quotes no command"
    for arguments in commands:
        assert str(path.relative_to(ROOT)) in arguments
        assert refusal(arguments) == ""


@pytest.mark.parametrize("path", EXPERIMENTS, ids=name)
def test_it_has_cells_as_it_is(path: Path) -> None:
    assert expand(load_experiment(path))
