"""Requests to the dealer: JSON objects of public numbers, checked before the dealer acts on them.

A request that fails a check ends the cell with an error that names the key, before any memory is allocated for it.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

from parties.errors import PartyError
from parties.options import MOST_DRAFTED

REQUEST_BYTES = 1 << 22
"""The longest request: shapes of all parameters, or of a whole cache, of a model of a thousand layers."""

MOST_NUMBERS = 1 << 33
"""Limit on the numbers in the matrices of a model, or in one tensor of a cache: 64 GiB of masks."""

MOST_EPOCHS = 1 << 32
"""Limit on attempts and on indices of epochs, which share the 64 bits of an epoch's number."""

_LONGEST_VALUE = 200  # characters of a quoted value


class BadRequest(PartyError):  # noqa: N818 - named for the condition
    """A party has sent the dealer an invalid request."""

    def __init__(self, peer: str, key: str, value: object, allowed: str) -> None:
        text = value if isinstance(value, str) else repr(value)
        super().__init__(peer, key, text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}...", allowed)

    def __str__(self) -> str:
        peer, key, value, allowed = self.args
        return (
            f"{peer} sent the dealer a request whose {key} is {value}; it must be {allowed}; "
            f"check that all parties run the same version"
        )


Check = Callable[[Any], str]
"""Returns the allowed values, or an empty string if the value is one of them."""


def whole(least: int, most: int) -> Check:
    """A whole number in a range; neither a float nor a bool."""
    return lambda value: (
        "" if type(value) is int and least <= value <= most else f"a whole number from {least} to {most}"
    )


def one_of(*names: str) -> Check:
    """One of some words."""
    return lambda value: "" if isinstance(value, str) and value in names else f"one of {', '.join(names)}"


def shapes(value: Any) -> str:
    """Names and shapes of tensors, none of more than MOST_NUMBERS numbers."""
    fits = isinstance(value, dict) and all(isinstance(shape, list) and _is_shape(shape) for shape in value.values())
    return "" if fits else f"an object of shapes, each a list of at most 8 sizes and {MOST_NUMBERS} numbers"


def _is_shape(shape: list[Any]) -> bool:
    sizes = all(type(size) is int and 0 <= size <= MOST_NUMBERS for size in shape)
    return sizes and len(shape) <= 8 and int(math.prod(shape)) <= MOST_NUMBERS


def an_object(value: Any) -> str:
    """A JSON object."""
    return "" if isinstance(value, dict) else "an object"


_INDEX, _ATTEMPT = whole(1, MOST_EPOCHS - 1), whole(0, MOST_EPOCHS - 1)
_CLIENTS: Mapping[str, Mapping[str, Check]] = {
    "install": {"shapes": shapes},
    "decode": {"plan": an_object, "attempt": _ATTEMPT},
    "go": {"index": _INDEX},
    "again": {"index": _INDEX, "attempt": _ATTEMPT},
    "accepted": {"index": _INDEX, "tokens": whole(1, MOST_DRAFTED + 1)},
    "prefilled": {},
    "credit": {"upto": whole(0, 1 << 62)},
    "end": {},
}
_SERVERS = {do: _CLIENTS[do] for do in ("prefilled", "credit", "end")}


def checked(role: str, request: Any) -> dict[str, Any]:
    """Checks that a request of `client` or `server` has exactly its keys, with values of their types and ranges.

    Raises:
        BadRequest: The request is invalid.
    """
    known = _CLIENTS if role == "client" else _SERVERS
    if not isinstance(request, dict):
        raise BadRequest(role, "whole", request, "an object")
    do = request.get("do")
    if wrong := one_of(*known)(do):
        raise BadRequest(role, "do", do, wrong)
    check_keys(role, f"{do} request", request, {"do": _nothing_more, **known[do]})  # type: ignore[index]
    return request


def check_keys(role: str, what: str, value: Mapping[str, Any], checks: Mapping[str, Check]) -> None:
    """Checks that an object has exactly these keys, and each value.

    Raises:
        BadRequest: A key or a value is invalid; the message names it.
    """
    if set(value) != set(checks):
        raise BadRequest(role, f"{what}'s keys", sorted(value), f"{', '.join(sorted(checks))}")
    for key, check in checks.items():
        if wrong := check(value[key]):
            raise BadRequest(role, f"{what}'s {key}", value[key], wrong)


def _nothing_more(_: Any) -> str:
    return ""
