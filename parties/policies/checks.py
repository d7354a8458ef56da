"""Ranges of policy parameters; every message starts with the parameter and names the allowed values."""

from collections.abc import Sequence


class OutOfRange(ValueError):  # noqa: N818 - named for what happened
    """A parameter has a value that is not allowed.

    Attributes:
        key: The parameter.
        value: Its value.
        allowed: What it may be, as in "X is not ...".
    """

    def __init__(self, key: str, value: object, allowed: str) -> None:
        super().__init__(key, value, allowed)
        self.key, self.value, self.allowed = key, value, allowed

    def __str__(self) -> str:
        return f"{self.key}: {self.value!r} is not {self.allowed}"


def share(name: str, value: object, *, zero: bool = True, one: bool = True) -> None:
    """Checks that a value is a number from 0 to 1, with or without the ends.

    Raises:
        OutOfRange: It is not.
    """
    bounds = f"{'[' if zero else '('}0, 1{']' if one else ')'}"
    number = isinstance(value, int | float) and not isinstance(value, bool)
    inside = number and 0 <= value <= 1 and (zero or value != 0) and (one or value != 1)  # type: ignore[operator]
    if not inside:
        raise OutOfRange(name, value, f"a number in {bounds}: a share, not a percentage")


def whole(name: str, value: object, least: int) -> None:
    """Checks that a value is a whole number of at least `least`.

    Raises:
        OutOfRange: It is not.
    """
    if type(value) is not int or value < least:
        raise OutOfRange(name, value, f"a whole number of at least {least}")


def one_of(name: str, value: object, allowed: Sequence[object]) -> None:
    """Checks that a value is one of a few.

    Raises:
        OutOfRange: It is not.
    """
    if not any(value == known and type(value) is type(known) for known in allowed):
        raise OutOfRange(name, value, f"one of {', '.join(map(str, allowed))}")


def number(name: str, value: object, least: float, largest: float) -> None:
    """Checks that a value is a number from `least` to `largest`.

    Raises:
        OutOfRange: It is not.
    """
    real = isinstance(value, int | float) and not isinstance(value, bool)
    if not real or not least <= value <= largest:  # type: ignore[operator]
        raise OutOfRange(name, value, f"a number in [{least:g}, {largest:g}]")
