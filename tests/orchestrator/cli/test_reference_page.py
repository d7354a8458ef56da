"""The page docs/cli.md is the one that the commands generate."""

from typing import Any

import typer

from orchestrator.cli.main import app
from orchestrator.cli.reference_page import PAGE, page


def commands(command: Any, name: str) -> dict[str, Any]:
    """Every command that Typer has, by its whole name."""
    children = getattr(command, "commands", {})
    found = {} if children else {name: command}
    return found | {k: v for child in children for k, v in commands(children[child], f"{name} {child}").items()}


def test_the_page_in_the_repository_is_the_one_that_the_commands_make() -> None:
    assert PAGE.read_text() == page(), "run python -m orchestrator.cli.reference_page"


def test_every_command_and_option_that_typer_has_is_on_the_page() -> None:
    sections = {part.partition("`")[0]: part for part in page().split("\n## `")[1:]}
    for name, command in commands(typer.main.get_command(app), "mpcache-bench").items():
        for parameter in command.params:
            for flag in (*parameter.opts, *parameter.secondary_opts):
                assert not flag.startswith("--") or flag == "--help" or flag in sections[name], f"{name} {flag}"
