"""Every command that the documents quote is one that the program, a script, the Makefile or pytest takes."""

import re
from pathlib import Path

import pytest

from tests.helpers.commands import mentioned, quoted, refusal
from tests.helpers.paths import ROOT

PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")), ROOT / "changelog.d" / "README.md"]
FILES = ("examples/", "benchmarks/")
_SCRIPT = re.compile(r"(?:^|`)(?:\w+=\S+ )*python (-m )?([\w./]+)([^`\n|#]*)", re.MULTILINE)
_MAKE = re.compile(r"(?:^\s*|`)make ([a-z][a-z -]*?)(?: [A-Z_]+=\S+)*\s*(?:`|#|$)", re.MULTILINE)
_PYTEST = re.compile(r"(?:^|`)pytest ([\w./ -]+)", re.MULTILINE)


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


def scripts(text: str) -> list[tuple[Path | None, list[str]]]:
    """Our Python scripts and modules that a text runs, with the options that it gives; None for one that is missing."""
    found: list[tuple[Path | None, list[str]]] = []
    for module, name, rest in _SCRIPT.findall(text):
        path = ROOT / (name.replace(".", "/") if module else name)
        candidates = (path.with_suffix(".py") if module else path, path / "__main__.py")
        file = next((one for one in candidates if one.is_file()), None)
        found.append((file, [word for word in rest.split() if word.startswith("--")]))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_quoted_scripts_are_there_and_have_these_options(page: Path) -> None:
    for file, options in scripts(page.read_text()):
        assert file is not None
        files = file.parent.glob("*.py") if file.name == "__main__.py" else [file]
        source = "".join(one.read_text() for one in files)
        assert [option for option in options if option not in source] == [], file


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_quoted_targets_and_tests_are_there(page: Path) -> None:
    text, makefile = page.read_text(), (ROOT / "Makefile").read_text()
    asked = [target for targets in _MAKE.findall(text) for target in targets.split()]
    assert [target for target in asked if f"\n{target}:" not in makefile] == []
    words = [word for line in _PYTEST.findall(text) for word in line.split() if "/" in word]
    assert [word for word in words if not (ROOT / word).exists()] == []


def test_scripts_targets_and_tests_are_found() -> None:
    assert scripts("`python benchmarks/links.py --seconds 1`") == [(ROOT / "benchmarks/links.py", ["--seconds"])]
    assert scripts("python -m benchmarks.soak --seed 1") == [(ROOT / "benchmarks/soak/__main__.py", ["--seed"])]
    assert scripts("python -m benchmarks.nothing") == [(None, [])]
    assert _MAKE.findall("`make quick`, make sure, `make fuzz FUZZ_SECONDS=9`\nmake demo    # all") == [
        "quick",
        "fuzz",
        "demo",
    ]
    assert _PYTEST.findall("`pytest tests/dashboards`") == ["tests/dashboards"]
