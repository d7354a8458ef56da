"""What the documents show is what the program takes: YAML blocks are read, lists of fields are complete."""

import re
from typing import Any

import pytest
import yaml

from orchestrator.experiment.experiment import Experiment
from orchestrator.quality.study import Study
from parties.roles.job import Job
from tests.helpers.paths import ROOT

PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
_BLOCK = re.compile(r"^```ya?ml\n(.*?)^```$", re.MULTILINE | re.DOTALL)

# A block shows the keys that its page is about; the rest comes from here.
_EXPERIMENT = {
    "name": "quoted",
    "model": "random:llama?layers=1&positions=2048",
    "prompt": {"random_tokens": True},
    "engines": ["fss"],
    "policies": ["full"],
    "seq_lens": [128],
}
_STUDY = {
    "name": "quoted",
    "model": _EXPERIMENT["model"],
    "policies": ["full"],
    "tasks": ["needle_single"],
    "lengths": [64],
}


def blocks() -> list[Any]:
    found = ((page, number, text) for page in PAGES for number, text in enumerate(_BLOCK.findall(page.read_text())))
    return [pytest.param(text, id=f"{page.relative_to(ROOT)}-{number}") for page, number, text in found]


def read(text: str) -> Experiment | Study:
    """What the block would be as a file in `examples/`."""
    keys = yaml.safe_load(text)
    kind, rest = (Experiment, _EXPERIMENT) if keys.keys() <= Experiment.model_fields.keys() else (Study, _STUDY)
    return kind.model_validate(rest | keys, context={"folder": ROOT / "examples"})


@pytest.mark.parametrize("text", blocks())
def test_a_block_of_yaml_is_read_as_it_stands(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "examples/policies"))
    assert read(text)


@pytest.mark.parametrize("text", ["engine: fss", "networks: [lann]", "policies: [{name: quest, pages: 3}]"])
def test_a_block_that_the_program_would_refuse_fails(text: str) -> None:
    with pytest.raises(ValueError, match=r"engine|lann|pages"):
        read(text)


def test_the_page_on_architecture_names_every_field_of_a_job() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    listed = page.partition("public values and *paths*:\n")[2].partition(".\n")[0]
    assert re.findall(r"`(\w+)`", listed) == list(Job.model_fields)
