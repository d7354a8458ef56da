"""A command again, on the first host of a lab: the user's own arguments, without `--lab`."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, get_args, get_type_hints

import typer

from orchestrator.cli.common import refusing

LEFT_OUT = ("lab", "address")
"""Options that name where to run: the lab answers that, and `RAY_ADDRESS` names its Ray."""


def arguments(context: typer.Context) -> list[str]:
    """The words that give a command the same arguments again, save those of `LEFT_OUT`.

    Every argument and option is written with its value, defaults included, and every path is absolute: the hosts of a
    lab start in another folder.
    """
    words: list[str] = []
    values = _values(context)
    for parameter in context.command.params:
        if parameter.name in values and parameter.name not in LEFT_OUT:
            words += _written(parameter, values[parameter.name])
    return words


def folders(context: typer.Context) -> list[Path]:
    """Folders that the command's paths lead to, as far as they exist: the hosts must see them."""
    given = [path for value in _values(context).values() for path in _several(value) if isinstance(path, Path)]
    return [path if path.is_dir() else path.parent for path in given if path.exists()]


def rerun_in_lab(
    context: typer.Context,
    *,
    keep: Sequence[Path] = (),
    environment: Mapping[str, str] | None = None,
    descriptors: Sequence[int] = (),
) -> NoReturn:
    """Run the command again on the first host of a new lab, a Ray node on each of its three hosts, and exit as it does.

    Args:
        context: The command and its arguments.
        keep: Further folders that the hosts must see.
        environment: Further variables for the command.
        descriptors: Open files that it inherits.
    """
    from netem import NetemError
    from orchestrator.run.lab import run_in_lab

    argv = ["mpcache-bench", str(context.info_name), *arguments(context)]
    with refusing(NetemError):
        seen = [*folders(context), *keep]
        raise typer.Exit(run_in_lab(argv, keep=seen, environment=environment, descriptors=descriptors))


def _values(context: typer.Context) -> dict[str, Any]:
    """Each parameter's value; paths, which older versions of Typer hold as texts here, are absolute."""
    callback: Any = context.command.callback
    hints = get_type_hints(inspect.unwrap(callback))
    return {
        name: [Path(one).resolve() for one in _several(value)] if _holds_paths(hints[name]) else value
        for name, value in context.params.items()
    }


def _holds_paths(hint: Any) -> bool:
    return hint is Path or any(map(_holds_paths, get_args(hint)))


def _written(parameter: Any, value: Any) -> Iterator[str]:
    """An argument or option as words of a command line; nothing for a flag without an opposite that is off."""
    name = parameter.opts[-1]
    if isinstance(value, bool):
        yield from [name] if value else parameter.secondary_opts[-1:]
    else:
        yield from (f"{name}={one}" if name.startswith("--") else str(one) for one in _several(value))


def _several(value: Any) -> Sequence[Any]:
    """The values of an option that may be left out, or given several times."""
    return [] if value is None else value if isinstance(value, list | tuple) else [value]
