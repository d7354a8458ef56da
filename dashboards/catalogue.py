"""The list of panels, with the question that each answers, for `docs/watching.md`."""

from pathlib import Path

from dashboards.boards import BOARDS, MAY_BE_EMPTY, board

DOCUMENT = Path(__file__).parents[1] / "docs" / "watching.md"
BEGIN, END = "<!-- panels: written by python -m dashboards -->", "<!-- end of panels -->"


def panels() -> str:
    """The panels of every board as Markdown tables."""
    return "\n".join(_section(name) for name in BOARDS)


def with_list(text: str) -> str:
    """The document with the current list of panels.

    Raises:
        ValueError: The markers around the list are missing.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{DOCUMENT}: the list of panels goes between the lines {BEGIN!r} and {END!r}; put them back")
    return f"{before}{BEGIN}\n\n{panels()}\n{END}{after}"


def _section(name: str) -> str:
    made = board(name)
    lines = [f"### {made['title']}", "", made["description"], "", "| panel | answers | kind | empty |"]
    lines.append("| --- | --- | --- | --- |")
    for panel in made["panels"]:
        if panel["type"] != "row":
            empty = MAY_BE_EMPTY.get(panel["title"], "")
            lines.append(f"| {panel['title']} | {panel['description']} | {panel['type']} | {empty} |")
    return "\n".join((*lines, ""))
