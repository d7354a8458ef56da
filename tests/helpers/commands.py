"""The commands that a text quotes, and whether the program accepts them."""

import re
import shlex
from typing import Any

import typer

from orchestrator.cli.main import app

_INLINE = re.compile(r"`(mpcache-bench [^`]+)`")
_LINE = re.compile(r"^(?:#\s+|\$ |\s*)?(mpcache-bench [a-z][^`|]*?)(?:\s+#.*)?$", re.MULTILINE)
_NOT_ALL = ("...", "…", "[", "<", ";", "|")


def quoted(text: str) -> list[list[str]]:
    """The arguments of each `mpcache-bench` command that has a line of its own, in a code block or a comment.

    Lines that a backslash continues are joined. Commands that are shortened with dots, or leave a choice, are omitted.
    """
    return _arguments(_LINE.findall(text.replace("\\\n", " ")))


def mentioned(text: str) -> list[list[str]]:
    """The arguments of each command in inline code, which need not be complete."""
    return _arguments(_INLINE.findall(text))


def _arguments(commands: list[str]) -> list[list[str]]:
    whole = [command for command in sorted(set(commands)) if not any(mark in command for mark in _NOT_ALL)]
    return [shlex.split(command)[1:] for command in whole]


def refusal(arguments: list[str]) -> str:
    """The reason why the program refuses these arguments; empty if it accepts them."""
    command: Any = typer.main.get_command(app)
    rest = list(arguments)
    while rest and hasattr(command, "commands") and not rest[0].startswith("-"):
        if rest[0] not in command.commands:
            return f"there is no command {rest[0]}"
        command = command.commands[rest.pop(0)]
    try:
        command.make_context("mpcache-bench", rest)
    except typer.Exit:
        return ""  # --help and --version end here
    except Exception as error:
        if not hasattr(error, "format_message"):  # the class of Typer's usage errors differs between its versions
            raise
        return str(error.format_message())
    return ""
