"""Writes `docs/cli.md` from the commands themselves: `python -m orchestrator.cli.reference_page`.

It reads the functions behind the commands and not what Typer prints, which differs between versions of Typer.
"""

import inspect
import textwrap
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

from typer import Context, Typer
from typer.models import ArgumentInfo, OptionInfo

from orchestrator.cli.main import app

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"

_HEAD = """\
# Command line

<!-- Written by `python -m orchestrator.cli.reference_page`; do not edit by hand. -->

`--help` behind a command prints the same. Exit codes: 0 success; 1 a cell failed, or something is to be fixed; 2
nothing could start; 130 interrupted.

"""


def page() -> str:
    """The reference of all commands as Markdown."""
    commands = sorted(_commands(app, "mpcache-bench"))
    return _HEAD + "\n\n".join(_section(name, function) for name, function in commands) + "\n"


def _commands(group: Typer, prefix: str) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Every command's whole name with the function behind it."""
    for command in group.registered_commands:
        if command.callback is not None and not command.hidden:
            yield f"{prefix} {command.name or command.callback.__name__.replace('_', '-')}", command.callback
    if (own := group.registered_callback) and own.callback is not None:
        yield prefix, own.callback
    for child in group.registered_groups:
        if child.typer_instance is not None:
            yield from _commands(child.typer_instance, f"{prefix} {child.name}")


def _section(name: str, function: Callable[..., Any]) -> str:
    hints = get_type_hints(function, include_extras=True)
    parameters = inspect.signature(function).parameters.values()
    found = [_parameter(one, hints[one.name]) for one in parameters if hints[one.name] is not Context]
    written = sorted(found, key=lambda one: one[0].startswith("-"))
    parts = [f"## `{name}`", _paragraphs(inspect.getdoc(function) or "")]
    if written:
        rows = (f"| `{form}` | {default} | {meaning} |" for form, default, meaning in written)
        parts.append("\n".join(("| argument | default | meaning |", "| --- | --- | --- |", *rows)))
    return "\n\n".join(parts)


def _parameter(parameter: inspect.Parameter, hint: Any) -> tuple[str, str, str]:
    """How an argument or option is written, its default and its meaning."""
    kind, *notes = get_args(hint)
    info = next(note for note in notes if isinstance(note, OptionInfo | ArgumentInfo))
    required = parameter.default in (inspect.Parameter.empty, ...)
    if isinstance(info, ArgumentInfo):
        value = _value(kind, info, parameter.name).strip("[]")
        form = value if required else f"[{value}]"
    else:
        form = _option(kind, info, parameter.name)
    return form, "required" if required else _default(parameter.default), _escaped(info.help or "")


def _option(kind: Any, info: OptionInfo, name: str) -> str:
    names = [one for one in (info.default, *(info.param_decls or ())) if isinstance(one, str)]  # Typer's own order
    given, flag = ", ".join(names), f"--{name.replace('_', '-')}"
    if kind is bool:
        return given or f"{flag}, --no{flag[1:]}"
    return f"{given or flag} {_value(kind, info, name)}"


def _value(kind: Any, info: OptionInfo | ArgumentInfo, name: str) -> str:
    """The placeholder of a value: its metavar, its choices, or its type; with dots where several may be given."""
    several = get_origin(kind) is list or any(get_origin(one) is list for one in get_args(kind))
    (kind,) = [one for one in _types(kind) if one is not NoneType] or [str]
    if isinstance(kind, type) and issubclass(kind, Enum):
        text = "{" + ",".join(str(choice.value) for choice in kind) + "}"
    elif isinstance(info, ArgumentInfo):
        text = info.metavar or name.upper()
    else:
        text = info.metavar or {int: "N", float: "X", Path: "PATH"}.get(kind, name.upper())
    return f"{text}..." if several and not text.endswith("...") else text


def _types(kind: Any) -> tuple[Any, ...]:
    """The types of a value: `list[Path] | None` is of the types Path and None."""
    inner = get_args(kind)
    return tuple(one for part in inner for one in _types(part)) if inner else (kind,)


def _default(value: Any) -> str:
    if value in (None, "", [], ()):
        return ""
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"`{value.value if isinstance(value, Enum) else value}`"


def _paragraphs(docstring: str) -> str:
    """The help without the line breaks of its source, in lines of the documents' width."""
    blocks = (" ".join(block.split()) for block in docstring.split("\n\n"))
    return "\n\n".join(textwrap.fill(_escaped(block), 120) for block in blocks)


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
