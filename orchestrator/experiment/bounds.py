"""A model's own bounds, as an experiment names them: a file that `mpcache-bench calibrate` wrote, or its mapping."""

from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationInfo

from orchestrator.experiment.choices import readable_file
from orchestrator.experiment.problems import ConfigError, Problem, Rejected, unknown
from orchestrator.experiment.yaml_files import read_mapping

_FIX = "correct the value, or let `mpcache-bench calibrate` write the file"


def read_bounds(given: object, info: ValidationInfo) -> object:
    """The mapping of a file, or the value itself; in an experiment it is checked.

    Raises:
        Rejected: The file cannot be read, or the engine does not take a bound.
    """
    if isinstance(given, str):
        given = _read(Path(readable_file(given, info)))
    if isinstance(given, Mapping):
        _check(given)
    elif not isinstance(given, tuple):
        raise Rejected(Problem("", given, "a path, or a mapping from number to bound", _FIX))
    return given


def _read(path: Path) -> Mapping[str, object]:
    from parties.engines.fss.bounds import WIDEST  # torch comes with it, and most experiments do without

    try:
        return read_mapping(path, WIDEST, "docs/running.md")
    except ConfigError as error:
        reasons = "; ".join(str(problem.value) for problem in error.problems)
        raise Rejected(Problem("", str(path), "a YAML mapping from number to bound", _FIX, reasons)) from None


def _check(given: Mapping[str, object]) -> None:
    from parties.engines.fss.bounds import FIXED, WIDEST, BoundRefused, declared, own_only

    problems = []
    for number, limit in given.items():
        if number in FIXED:
            problems.append(Problem(number, limit, own_only(number), _FIX))
        elif number not in WIDEST:
            problems.append(unknown(str(number), number, list(WIDEST), "number"))
        elif type(limit) is not int:
            problems.append(Problem(number, limit, "a power of two", _FIX))
        else:
            try:
                declared(((number, limit),))
            except BoundRefused as error:
                problems.append(Problem(number, limit, error.allowed, _FIX))
    if problems:
        raise Rejected(*problems)
