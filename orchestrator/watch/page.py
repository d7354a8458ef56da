"""The live page: one HTML document with its style and script, which needs nothing but the driver."""

from importlib.resources import files

_PARTS = ("page.css", "chart.js", "page.js")


def html() -> bytes:
    """The document."""
    folder = files("orchestrator.watch")
    text = (folder / "page.html").read_text(encoding="utf-8")
    for part in _PARTS:
        text = text.replace(f"/* {part} */", (folder / part).read_text(encoding="utf-8"))
    return text.encode()
