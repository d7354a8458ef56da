"""Every command that the documents quote is one that the program takes."""

from pathlib import Path

import pytest

from tests.helpers.commands import mentioned, quoted, refusal
from tests.helpers.paths import ROOT

PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
FILES = ("examples/", "benchmarks/")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_quoted_commands_have_these_options_and_these_files(page: Path) -> None:
    lines, mentions = quoted(page.read_text()), mentioned(page.read_text())
    for arguments in lines:
        assert refusal(arguments) == "", " ".join(arguments)
    for arguments in mentions:
        reason = refusal(arguments)
        assert not reason or reason.startswith(("Missing", "Invalid value")), f"{' '.join(arguments)}: {reason}"
    for argument in (argument for arguments in (*lines, *mentions) for argument in arguments):
        assert not argument.startswith(FILES) or (ROOT / argument).exists(), argument


def test_commands_are_found_wherever_they_stand() -> None:
    block = "```\nmpcache-bench run a.yaml \\\n    --out runs/a   # resumes\n```\n"
    text = f"Say `mpcache-bench report DIR`.\n\n{block}# mpcache-bench lab up\n"
    assert quoted(text) == [["lab", "up"], ["run", "a.yaml", "--out", "runs/a"]]
    assert mentioned(text) == [["report", "DIR"]]
    assert mentioned("`mpcache-bench run ...` and mpcache-bench in a sentence") == []


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (["run", "a.yaml"], "Missing option '--out'"),
        (["run", "a.yaml", "--out", "o", "--fast"], "No such option"),
        (["run", "a.yaml", "--out", "o", "--limit", "many"], "Invalid value for '--limit'"),
        (["walk"], "no command walk"),
    ],
)
def test_invalid_commands_are_refused(command: list[str], reason: str) -> None:
    assert reason in refusal(command)
