"""The page of troubles quotes messages that the code really has."""

import ast
import re
from functools import cache

import pytest

from tests.helpers.paths import ROOT

PAGE = ROOT / "docs/troubleshooting.md"
ROOMS = ("orchestrator", "parties", "netem", "dashboards")


def template(node: ast.AST) -> str:
    """A string as it is written, with a mark for each field."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(template(part) for part in node.values)
    return "\0"


@cache
def templates() -> tuple[str, ...]:
    trees = [ast.parse(path.read_text(encoding="utf-8")) for room in ROOMS for path in (ROOT / room).rglob("*.py")]
    nodes = (node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant | ast.JoinedStr))
    return tuple(text for text in map(template, nodes) if text)


def quoted() -> list[str]:
    return re.findall(r"^\| `([^`]+)` \|", PAGE.read_text(encoding="utf-8"), re.M)


def is_in_the_code(message: str) -> bool:
    """Whether one string of the code holds all fixed parts of a message in order, with something filled in between."""
    parts = [part.strip() for part in message.split("…") if part.strip()]
    pattern = ".*".join(re.escape(part) for part in parts)
    return any(re.search(pattern, text, re.S) for text in templates())


@pytest.mark.parametrize("message", quoted())
def test_a_quoted_message_is_one_of_the_codes(message: str) -> None:
    assert is_in_the_code(message)


def test_the_page_quotes_and_the_check_can_fail() -> None:
    assert len(quoted()) > 25
    assert not is_in_the_code("the moon is in the way of … today")
