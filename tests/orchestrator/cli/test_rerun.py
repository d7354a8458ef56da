"""A command that runs again on the hosts of a lab keeps every argument of the user."""

import inspect
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import typer
from typer.testing import CliRunner

from orchestrator.cli.main import app
from orchestrator.cli.rerun import LEFT_OUT, arguments
from orchestrator.run import lab
from orchestrator.run.retry import Retry

COMMANDS = ("run", "doctor")


def command(name: str) -> Any:
    return typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]


def value(name: str, hint: Any, folder: Path) -> list[str]:
    """A value that differs from the default of the option, as words."""
    kind = next((one for one in (bool, int, float, Path, Retry, str) if mentions(hint, one)), None)
    assert kind is not None, f"write a value for {name}: {hint}"
    words = {bool: [], int: ["7"], float: ["7.5"], Path: [str(folder / name)], Retry: [Retry.FAILED.value], str: ["x"]}
    return words[kind]


def mentions(hint: Any, kind: type) -> bool:
    return hint is kind or any(mentions(part, kind) for part in get_args(hint))


def words(name: str, parameter: Any, folder: Path) -> list[str]:
    function = inspect.unwrap(command(name).callback)
    given = value(parameter.name, get_type_hints(function)[parameter.name], folder)
    if parameter.param_type_name == "argument":
        return given
    off = parameter.default is True and parameter.secondary_opts
    once = [(parameter.secondary_opts if off else parameter.opts)[0], *given]
    return once * (2 if parameter.multiple else 1)


def parsed(name: str, given: list[str]) -> Any:
    return command(name).make_context(name, given)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_of_the_command_reaches_the_lab(name: str, tmp_path: Path) -> None:
    parameters = [parameter for parameter in command(name).params if parameter.name != "help"]
    given = parsed(name, [word for parameter in parameters for word in words(name, parameter, tmp_path)])
    defaults = {parameter.name: parameter.get_default(given) for parameter in parameters}
    unchanged = [name for name, value in given.params.items() if value == defaults[name]]
    assert not unchanged, "this test must give every option another value than its default"
    again = parsed(name, arguments(given))
    for parameter in parameters:
        expected = defaults[parameter.name] if parameter.name in LEFT_OUT else given.params[parameter.name]
        assert again.params[parameter.name] == expected, parameter.name


@pytest.mark.parametrize("name", COMMANDS)
def test_defaults_stay_defaults(name: str, tmp_path: Path) -> None:
    given = parsed(name, [str(tmp_path / "x.yaml"), "--out", str(tmp_path)])
    assert parsed(name, arguments(given)).params == given.params


def test_paths_are_absolute_and_their_folders_are_seen_by_the_hosts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}

    def run_in_lab(argv: list[str], **options: Any) -> int:
        seen.update(options, argv=argv)
        return 5

    monkeypatch.setattr(lab, "run_in_lab", run_in_lab)
    monkeypatch.chdir(tmp_path)
    for folder in ("past", "out"):
        (tmp_path / folder).mkdir()
    done = CliRunner().invoke(app, ["doctor", "--lab", "--out", "out", "--records", "past", "--json"])
    assert done.exit_code == 5, done.output
    assert seen["argv"] == [
        "mpcache-bench",
        "doctor",
        f"--out={tmp_path / 'out'}",
        f"--records={tmp_path / 'past'}",
        "--json",
    ]
    assert set(seen["keep"]) == {tmp_path / "out", tmp_path / "past"}
