"""The live page: one HTML document with its style and script, which needs nothing but the driver."""

from importlib.resources import files

_STYLE, _SCRIPT = "/* page.css */", "/* page.js */"


def html() -> bytes:
    """The document."""
    folder = files("orchestrator.observe")
    text = (folder / "page.html").read_text(encoding="utf-8")
    for mark in (_STYLE, _SCRIPT):
        name = mark.strip("/* ")
        text = text.replace(mark, (folder / name).read_text(encoding="utf-8"))
    return text.encode()
