"""A policy from outside the package, named by its import path."""

import sys
from pathlib import Path

import pytest

from orchestrator.experiment.cells import Cell, expand
from orchestrator.experiment.experiment import load_experiment
from orchestrator.experiment.problems import ConfigError
from orchestrator.predict.forecast import forecast
from orchestrator.records.record import Record
from parties.decoding.workload import Start, Workload
from parties.engines.fss.dealing.plan import Plan
from parties.engines.fss.dealing.requests import BadRequest
from parties.policies import UnknownPolicy, make, policy_class
from tests.helpers import samples
from tests.helpers.paths import ROOT
from tests.helpers.tiny import SPECS

FOLDER = ROOT / "examples/policies"
FILE = FOLDER / "latest_tokens.yaml"
NAME = "latest_tokens:LatestTokens"


@pytest.fixture
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))


def module(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module `own` with a text."""
    (folder / "own.py").write_text(text)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "own", raising=False)


HEAD = "from dataclasses import dataclass\nfrom typing import ClassVar\nfrom parties.policies.base import Policy\n\n"
OWN = HEAD + "@dataclass(frozen=True)\nclass Own(Policy):\n    "
REFUSED = {
    "no such module": ("", "nowhere:Policy", "No module named 'nowhere'"),
    "no such class": (HEAD, "own:Missing", "has no attribute 'Missing'"),
    "a module that fails": ("1 / 0", "own:Own", "ZeroDivisionError"),
    "no policy": ("class Own: pass", "own:Own", "is not a dataclass below"),
    "no dataclass of its own": (HEAD + "@dataclass\nclass Own: pass", "own:Own", "is not a dataclass below"),
    "no default": (OWN + "size: int", "own:Own", "without parameters"),
    "another name": (
        OWN + "name: ClassVar[str] = 'own'",
        "own:Own",
        "calls itself own",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("text", "name", "why"), REFUSED.values(), ids=REFUSED)
def test_invalid_policies_are_refused_with_the_reason(
    text: str, name: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module(tmp_path, text, monkeypatch)
    with pytest.raises(UnknownPolicy, match=why):
        policy_class(name)
    file = tmp_path / "experiment.yaml"
    file.write_text(FILE.read_text().replace(NAME, name))
    with pytest.raises(ConfigError, match=rf"policies\[1\].name: '{name}' cannot be used: .*{why}.*PYTHONPATH"):
        load_experiment(file)


@pytest.mark.usefixtures("importable")
def test_it_is_an_experiments_policy_with_its_parameters_and_its_cost() -> None:
    cells = expand(load_experiment(FILE))
    own = [cell for cell in cells if cell.policy.name == NAME]
    assert [str(cell.policy) for cell in own] == [f"{NAME}(compression_ratio=0.75)"] * 2
    fewer, all_ = (
        forecast(next(c for c in cells if c.engine.name == "fss" and c.policy.name == n)) for n in (NAME, "full")
    )
    assert sum(fewer.decode.sent.values()) < sum(all_.decode.sent.values())
    assert fewer.decode.rounds == all_.decode.rounds


@pytest.mark.usefixtures("importable")
@pytest.mark.parametrize(
    ("parameter", "path"),
    [
        ("compression_ratio: 7", "compression_ratio"),
        ("compression_ratio: x", "compression_ratio"),
        ("ratio: 1", "ratio"),
    ],
)
def test_its_parameters_are_checked_when_the_experiment_is_loaded(tmp_path: Path, parameter: str, path: str) -> None:
    file = tmp_path / "experiment.yaml"
    file.write_text(FILE.read_text().replace("compression_ratio: 0.75", parameter))
    with pytest.raises(ConfigError) as caught:
        load_experiment(file)
    assert [problem.path for problem in caught.value.problems] == [f"policies[1].{path}"]


def test_a_record_of_it_is_read_without_importing_it() -> None:
    policy = {"name": "elsewhere:Policy", "size": 3}
    cell = Cell.model_validate(samples.cell().model_dump(mode="json") | {"policy": policy})
    record = Record.model_validate_json(samples.record(cell).model_dump_json())
    assert str(record.cell.policy) == "elsewhere:Policy(size=3)"


@pytest.mark.usefixtures("importable")
def test_a_dealer_imports_only_what_its_own_job_names() -> None:
    plan = Plan(Workload(SPECS["llama"], NAME, {"compression_ratio": 0.5}, 2, sequences=(Start(20),)), 2).to_json()
    assert Plan.from_json(plan, NAME).workload.policy == NAME
    sys.modules.pop("latest_tokens")
    for own in ("full", "latest_tokens:Another"):
        with pytest.raises(BadRequest, match="policy is latest_tokens:LatestTokens"):
            Plan.from_json(plan, own)
    assert "latest_tokens" not in sys.modules
    assert Plan.from_json({**plan, "policy": "full", "parameters": {}}, NAME).workload.policy == "full"


@pytest.mark.usefixtures("importable")
def test_it_is_named_by_its_import_path() -> None:
    policy = make(NAME, compression_ratio=0.75)
    assert policy.name == NAME
    assert policy.cached(64) == 16
