"""Every example runs: as it is, but for a tiny model, one short prompt and bare links."""

import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from orchestrator.cli.main import app
from orchestrator.experiment.cells import Cell, expand
from orchestrator.experiment.experiment import load_experiment
from orchestrator.records.record import Record
from orchestrator.report import render
from orchestrator.run.ray_session import ray_session
from orchestrator.run.runner import Runner
from orchestrator.watch.targets import TargetFile
from tests.helpers.commands import quoted, refusal
from tests.helpers.needs import needs
from tests.helpers.paths import ROOT

EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
STUDIES = [path for path in EXAMPLES if "tasks" in yaml.safe_load(path.read_text())]
EXPERIMENTS = [path for path in EXAMPLES if path not in STUDIES]
WITH_SPU = [path for path in EXPERIMENTS if load_experiment(path).engines[-1].name == "spu"]
BY_ENGINE = sorted(EXPERIMENTS, key=lambda path: str(load_experiment(path).engines[-1]))  # which share parties
RENDERED = ("batch", "draft", "quickstart")  # whose reports differ most; a report takes seconds
TOY = {
    "model": "random:tiny-llama", "seq_lens": [24], "networks": ["none"], "new_tokens": 1, "repeats": 1, "gpu": False,
    "timeout_s": 300, "cell_timeout_s": 3600,  # cells of equal limits share parties
}  # fmt: skip
TOY_STUDY = {
    "model": "random:llama?layers=1&hidden=16&heads=2&kv_heads=1&intermediate=16&vocab=256&positions=2048",
    "lengths": [300], "budgets": [0.25], "samples": 1, "continuation": 2, "device": "cpu",
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


def toy_cells(path: Path, folder: Path) -> list[Cell]:
    """The cells of a copy."""
    fewer = {"policies": ["full"], "warmup": 0} if path in WITH_SPU else {}  # each program of SPU's is compiled
    engines = load_experiment(path).engines
    wanted = engines if path.stem == "quickstart" else engines[-1:]
    return [cell for cell in expand(load_experiment(toy(path, folder, TOY | fewer))) if cell.engine in wanted]


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Path], list[Record]]]:
    """Runs the cells of an experiment, each once, on parties that stay for the next one: they start slowly."""
    folder = tmp_path_factory.mktemp("examples")
    targets = TargetFile([folder / "targets.json"], "examples")
    with ray_session(None), Runner("examples", folder, targets, threading.Event()) as runner:
        known: dict[str, Record] = {}

        def records(path: Path) -> list[Record]:
            cells = toy_cells(path, tmp_path_factory.mktemp(path.stem))
            for cell in cells:
                if cell.id not in known:
                    known[cell.id] = runner.run(cell, lambda _: None).record
            return [known[cell.id] for cell in cells]

        yield records


@pytest.mark.ray
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    "path", [pytest.param(path, marks=[needs("spu")] * (path in WITH_SPU)) for path in BY_ENGINE], ids=name
)
def test_an_experiment_runs(path: Path, records: Callable[[Path], list[Record]], tmp_path: Path) -> None:
    found = records(path)
    assert found
    assert [(record.status, record.error) for record in found] == [("ok", None)] * len(found)
    if path.stem in RENDERED:
        assert render(tmp_path, found)


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
