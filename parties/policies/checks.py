"""Ranges of policy parameters; every message starts with the parameter and says what is allowed."""

from collections.abc import Sequence


def share(name: str, value: object, *, zero: bool = True, one: bool = True) -> None:
    """Checks that a value is a number from 0 to 1, with or without the ends.

    Raises:
        ValueError: It is not.
    """
    bounds = f"{'[' if zero else '('}0, 1{']' if one else ')'}"
    number = isinstance(value, int | float) and not isinstance(value, bool)
    inside = number and 0 <= value <= 1 and (zero or value != 0) and (one or value != 1)  # type: ignore[operator]
    if not inside:
        raise ValueError(f"{name}: {value!r} is not a number in {bounds}; it is a share, not a percentage")


def whole(name: str, value: object, least: int) -> None:
    """Checks that a value is a whole number of at least `least`.

    Raises:
        ValueError: It is not.
    """
    if type(value) is not int or value < least:
        raise ValueError(f"{name}: {value!r} is not a whole number of at least {least}")


def one_of(name: str, value: object, allowed: Sequence[object]) -> None:
    """Checks that a value is one of a few.

    Raises:
        ValueError: It is not.
    """
    if not any(value == known and type(value) is type(known) for known in allowed):
        raise ValueError(f"{name}: {value!r} is not one of {', '.join(map(str, allowed))}")


def number(name: str, value: object, least: float, largest: float) -> None:
    """Checks that a value is a number from `least` to `largest`.

    Raises:
        ValueError: It is not.
    """
    real = isinstance(value, int | float) and not isinstance(value, bool)
    if not real or not least <= value <= largest:  # type: ignore[operator]
        raise ValueError(f"{name}: {value!r} is not a number in [{least:g}, {largest:g}]")
