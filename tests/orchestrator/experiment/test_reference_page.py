from dataclasses import fields

from orchestrator.experiment.experiment import Experiment
from orchestrator.experiment.reference_page import PAGE, attributes, page
from parties.policies import POLICIES
from tests.helpers.paths import ROOT


def test_the_page_in_the_repository_is_the_one_that_the_models_make() -> None:
    example = ROOT / "examples" / "quickstart.yaml"
    assert PAGE.read_text() == page(example.read_text()), "run python -m orchestrator.experiment.reference_page"


def test_every_key_policy_and_parameter_is_documented() -> None:
    text = page("")
    for name, field in Experiment.model_fields.items():
        assert f"| `{name}` |" in text
        assert field.description
        assert field.description in text
    for name, policy in POLICIES.items():
        section = text.split(f"### `{name}`\n")[1].split("\n#")[0]
        for parameter in [field.name for field in fields(policy)]:
            row = next(line for line in section.splitlines() if line.startswith(f"| `{parameter}` |"))
            assert len(row.split("|")[3].split()) > 3, f"{name}.{parameter} has no meaning"


def test_a_description_of_several_lines_is_complete() -> None:
    docstring = "Keeps rows.\n\nAttributes:\n    head: the path\n        of a file.\n    bits: one to\n        eight.\n"
    assert attributes(docstring) == {"head": "the path of a file.", "bits": "one to eight."}
    for section in page("").split("\n## `networks`")[0].split("\n### ")[1:]:
        cells = [line.split("|")[3].strip() for line in section.splitlines() if line.startswith("| `")]
        assert all(cell.endswith((".", "`")) for cell in cells if cell), cells


def test_bounds_are_documented() -> None:
    text = page("")
    assert "list of whole numbers from 2, at least one, each once" in text
    assert "`private` or `client`" in text
    assert "whole number from 1 to 65535" in text
