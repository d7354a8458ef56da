"""The list of panels with the question that each answers, for `docs/dashboards.md`."""

from pathlib import Path

from dashboards.boards import BOARDS

DOCUMENT = Path(__file__).parents[1] / "docs" / "dashboards.md"
BEGIN, END = "<!-- panels: written by python -m dashboards -->", "<!-- end of panels -->"


def panels() -> str:
    """Every board's panels as Markdown tables."""
    return "\n".join(_section(name) for name in BOARDS)


def with_list(text: str) -> str:
    """The document with the list as the boards have it.

    Raises:
        ValueError: The marks that the list stands between are missing.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{DOCUMENT}: the list of panels goes between the lines {BEGIN!r} and {END!r}; put them back")
    return f"{before}{BEGIN}\n\n{panels()}\n{END}{after}"


def _section(name: str) -> str:
    board = BOARDS[name]().build()
    lines = [f"### {board.title}", "", f"{board.description}", "", "| panel | answers | kind |", "| --- | --- | --- |"]
    for panel in board.panels or []:
        if panel.type_val != "row":
            lines.append(f"| {panel.title} | {getattr(panel, 'description', '')} | {panel.type_val} |")
    return "\n".join((*lines, ""))
