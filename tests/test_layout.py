"""Tests mirror the packages that they test; shared helpers are in `tests/helpers`."""

from pathlib import PurePosixPath

import pytest

from tests.helpers.paths import ROOT

FILES = sorted(path.relative_to(ROOT / "tests").as_posix() for path in (ROOT / "tests").rglob("*.py"))
PACKAGES = {
    path.parent.relative_to(ROOT).as_posix()
    for package in ("orchestrator", "parties", "netem", "dashboards")
    for path in (ROOT / package).rglob("__init__.py")
}


def misplaced(path: str, packages: set[str]) -> str | None:
    """The error in the location of a file, given by its path in `tests`; empty if it is right."""
    file = PurePosixPath(path)
    folder = file.parent.as_posix()
    if folder == "helpers":
        return "is a test among the helpers" if file.name.startswith("test_") else None
    if folder != "." and folder not in packages:
        return f"tests no package: there is no {folder}/"
    if file.name.startswith("test_") or file.name in ("__init__.py", "conftest.py"):
        return None
    return "is no test; helpers lie in tests/helpers"


def test_no_file_is_misplaced() -> None:
    assert FILES
    assert [f"tests/{path} {wrong}" for path in FILES if (wrong := misplaced(path, PACKAGES))] == []


@pytest.mark.parametrize(
    ("path", "wrong"),
    [
        ("netem/test_a.py", None),
        ("netem/lab/test_a.py", None),
        ("test_a.py", None),
        ("conftest.py", None),
        ("helpers/a.py", None),
        ("helpers/test_a.py", "among the helpers"),
        ("fss/test_a.py", "no fss/"),
        ("netem/hosts/test_a.py", "no netem/hosts/"),
        ("netem/a.py", "is no test"),
        ("a.py", "is no test"),
    ],
)
def test_a_misplaced_file_is_found(path: str, wrong: str | None) -> None:
    found = misplaced(path, {"netem", "netem/lab"})
    assert (found is None) if wrong is None else (wrong in str(found))
