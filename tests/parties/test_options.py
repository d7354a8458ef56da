"""Engine options: the words that are read and stored, and that a new option is declared in one place."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from orchestrator.experiment.cells import Cell, expand
from parties.engines import ENGINES
from parties.options import READERS, RunOptions
from tests.helpers import samples
from tests.helpers.paths import ROOT

FILE = """
name: ladders
model: random:tiny-llama
prompt: {random_tokens: true}
engines: [fss]
policies: [full]
seq_lens: [16]
"""
SCRIPT = """
import json
import sys
from pathlib import Path
from typing import Literal

from pydantic import Field

from parties import options


class MoreOptions(options.RunOptions):
    ladder: Literal["short", "long"] = Field(default="short", description="How far a ladder reaches.")


options.RunOptions, options.DEFAULTS = MoreOptions, MoreOptions()

from orchestrator.experiment.cells import expand
from orchestrator.experiment.experiment import load_experiment
from orchestrator.experiment.reference_page import page
from orchestrator.records.record import CellError
from orchestrator.records.assemble import failed_record
from orchestrator.run.runner import job_of
from orchestrator.watch.watch import info
from parties.decoding.workload import Workload
from parties.engines.fss.dealing.plan import Plan
from parties.metering.registry import BY_NAME
from parties.models import load_spec
from tests.helpers.samples import START

(cell,) = expand(load_experiment(Path(sys.argv[1])))
record = failed_record(cell, CellError(status="interrupted", message="stopped"), (), START, START)
job = job_of(cell, show_text=False)
plan = Plan(Workload(load_spec(cell.model), "full", {}, 1, options=MoreOptions(**job["options"])), 2)
print(json.dumps({
    "id": cell.id,
    "record": json.loads(record.model_dump_json())["cell"]["ladder"],
    "job": job["options"]["ladder"],
    "dealer": Plan.from_json(json.loads(json.dumps(plan.to_json())), "full").workload.options.ladder,
    "label": info(cell)["ladder"],
    "declared label": "ladder" in BY_NAME["mpcbench_run_info"].labels,
    "documented": "How far a ladder reaches." in page(""),
}))
"""


def seen(folder: Path, text: str) -> Any:
    """The result of a program with one more option for an experiment file."""
    file = folder / "ladders.yaml"
    file.write_text(text, encoding="utf-8")
    asked = [sys.executable, "-c", SCRIPT, str(file)]
    return json.loads(subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=True).stdout)


def test_a_new_option_reaches_record_job_dealer_labels_and_reference_from_one_declaration(tmp_path: Path) -> None:
    found = seen(tmp_path, FILE + "ladder: long\n")
    assert {found[name] for name in ("record", "job", "dealer", "label")} == {"long"}
    assert found["declared label"]
    assert found["documented"]


def test_a_new_option_at_its_default_leaves_ids_as_they_were(tmp_path: Path) -> None:
    (cell,) = expand(samples.experiment(name="ladders", engines=["fss"], policies=["full"], seq_lens=[16]))
    values = {"model": "random:tiny-llama", "prompt": {"random_tokens": True}, "new_tokens": 2}
    before = Cell.model_validate({**cell.model_dump(), **values})
    assert seen(tmp_path, FILE)["id"] == before.id


def test_prefix_was_once_carry_and_both_are_read() -> None:
    old, new = (samples.cell(engines=["fss"], comparison=word) for word in ("carry", "prefix"))
    assert old == new
    assert new.comparison == "prefix"
    assert Cell.model_validate_json(new.model_dump_json()) == new
    assert json.loads(new.model_dump_json())["comparison"] == "carry", "records keep the word that ids were made of"


@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_keeps_the_options_that_it_reads(engine: str) -> None:
    asked = RunOptions(prefill="mpc", argmax="client", offline="stored", comparison="prefix", bounds=(("down", 4096),))
    kept = asked.read_by(engine)
    assert (kept.prefill, kept.argmax) == ("mpc", "client")
    for name, reader in READERS.items():
        default = RunOptions.model_fields[name].default
        assert getattr(kept, name) == (getattr(asked, name) if reader == engine else default)


def test_options_cannot_be_changed_or_invented() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        RunOptions().argmax = "client"
    with pytest.raises(ValidationError, match="ladder"):
        RunOptions(ladder="long")  # type: ignore[call-arg]
