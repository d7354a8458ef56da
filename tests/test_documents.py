"""The documents hold together: YAML blocks are read, links and names lead somewhere, pages keep to their form."""

import ast
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.experiment.experiment import Experiment
from orchestrator.quality.study import Study
from tests.helpers.paths import ROOT

DOCS = ROOT / "docs"
GUIDE = sorted(DOCS.glob("*.md"))
RESULTS = sorted((DOCS / "results").glob("*.md"))
NOTES = sorted((DOCS / "design").glob("*.md"))
FRONT = sorted(ROOT.glob("*.md"))
PAGES = [*FRONT, *GUIDE, *RESULTS, *NOTES]
GENERATED = ("experiments.md", "cli.md", "metrics.md", "policies.md")

MOST_PAGES = 14
LONGEST_README = 120
LONGEST_NOTE = 80
WIDEST = 120

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s#:]+)(?:#[^)\s]*)?\)")
_PLACE = re.compile(
    r"`((?:benchmarks|changelog\.d|dashboards|docs|examples|netem|orchestrator|parties|tests)/[\w./+-]*)(?::([\w.]+))?`"
)

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


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(*languages: str) -> list[Any]:
    """Every block of code in these languages."""
    found = ((page, number, block) for page in PAGES for number, block in enumerate(_FENCE.findall(page.read_text())))
    return [pytest.param(text, id=f"{named(page)}-{n}") for page, n, (kind, text) in found if kind in languages]


def read(text: str) -> Experiment | Study:
    """The block as if it were a file in `examples/`."""
    keys = yaml.safe_load(text)
    kind, rest = (Experiment, _EXPERIMENT) if keys.keys() <= Experiment.model_fields.keys() else (Study, _STUDY)
    return kind.model_validate(rest | keys, context={"folder": ROOT / "examples"})


@pytest.mark.parametrize("text", blocks("yaml", "yml"))
def test_a_block_of_yaml_is_read_as_it_stands(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "examples/policies"))
    assert read(text)


@pytest.mark.parametrize("text", ["engine: fss", "networks: [lann]", "policies: [{name: quest, pages: 3}]"])
def test_a_block_that_the_program_would_refuse_fails(text: str) -> None:
    with pytest.raises(ValueError, match=r"engine|lann|pages"):
        read(text)


def defined(tree: ast.AST) -> dict[str, ast.AST]:
    """What a module or class defines: classes, functions, and names that it assigns or imports."""
    found: dict[str, ast.AST] = {}
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            found[node.name] = node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {target.id: node for target in targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.ImportFrom):
            found |= {alias.asname or alias.name: node for alias in node.names}
    return found


def missing(path: str, symbol: str) -> bool:
    """Whether a file, or a name within it such as `Class.method`, is not there."""
    file = ROOT / path
    if not symbol or not file.is_file():
        return not file.exists()
    tree: ast.AST = ast.parse(file.read_text())
    for part in symbol.split("."):
        if (there := defined(tree).get(part)) is None:
            return True
        tree = there
    return False


@pytest.mark.parametrize("text", blocks("python"))
def test_a_block_of_python_uses_what_there_is(text: str) -> None:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module:
            path = node.module.replace(".", "/")
            file = f"{path}.py" if (ROOT / f"{path}.py").exists() else f"{path}/__init__.py"
            assert not [alias.name for alias in node.names if missing(file, alias.name)]


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_to_files(page: Path) -> None:
    assert [target for target in _LINK.findall(page.read_text()) if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_files_and_names_in_the_text_are_there(page: Path) -> None:
    assert [f"{path}:{name}" for path, name in _PLACE.findall(page.read_text()) if missing(path, name)] == []


def test_a_file_or_name_that_is_gone_is_found() -> None:
    assert not missing("tests/test_documents.py", "missing")
    assert missing("tests/test_documents.py", "found")
    assert missing("tests/test_nothing.py", "")
    assert not missing("parties/transport/link.py", "Link.exchange")
    assert missing("parties/transport/link.py", "Link.burn")


def test_the_ten_questions_are_ten() -> None:
    page = (DOCS / "design" / "0009-ten-questions.md").read_text()
    answers = [line for line in page.splitlines() if "? | `" in line]
    assert len(answers) == 10
    assert all(_PLACE.search(answer) for answer in answers)


def test_there_are_few_pages_and_they_are_short_where_they_must_be() -> None:
    assert len(GUIDE) <= MOST_PAGES
    assert len((ROOT / "README.md").read_text().splitlines()) < LONGEST_README
    assert [named(note) for note in NOTES if len(note.read_text().splitlines()) > LONGEST_NOTE] == []


def test_every_page_is_in_the_sites_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text()
    assert [named(page) for page in (*GUIDE, *RESULTS, *NOTES) if str(page.relative_to(DOCS)) not in navigation] == []


def prose(text: str) -> list[str]:
    """Lines that are neither code, nor a table, nor one link."""
    lines = _FENCE.sub("", text).splitlines()
    return [line for line in lines if not line.startswith(("|", "    ", "!["))]


@pytest.mark.parametrize("page", [page for page in PAGES if page.name not in GENERATED], ids=named)
def test_lines_of_prose_fit(page: Path) -> None:
    assert [line for line in prose(page.read_text()) if len(line) > WIDEST] == []
