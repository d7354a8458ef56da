"""The values inside what programs leave in a cache: nested tuples, dictionaries and dataclasses."""

from collections.abc import Callable, Iterable
from dataclasses import fields, is_dataclass, replace
from typing import Any

from torch import Tensor

from parties.engines.fss.arithmetic.values import Additive, Masked, Number

_VALUES = (Masked, Additive)
_NO_VALUES = (type(None), int, float, str, bool, Tensor)


def values_in(tree: Any) -> list[Number]:
    """Lists the masked and additive values."""
    found: list[Number] = []
    _collect(tree, found)
    return found


def _collect(tree: Any, found: list[Number]) -> None:
    kind = type(tree)  # not `isinstance`, which is slow for an abstract class
    if kind in _VALUES:
        found.append(tree)
    elif kind not in _NO_VALUES:
        parts = tree.values() if kind is dict else tree
        if is_dataclass(kind):
            parts = [getattr(tree, name) for name in kind.__dataclass_fields__]
        for part in parts if isinstance(parts, Iterable) else ():
            _collect(part, found)


def mapped(tree: Any, function: Callable[[Number], Number]) -> Any:
    """Returns the tree with each value replaced."""
    if type(tree) in _VALUES:
        return function(tree)
    if isinstance(tree, dict):
        return {name: mapped(item, function) for name, item in tree.items()}
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(mapped(item, function) for item in tree))
    if isinstance(tree, list | tuple):
        return type(tree)(mapped(item, function) for item in tree)
    if is_dataclass(tree) and not isinstance(tree, type):
        changed = {field.name: mapped(getattr(tree, field.name), function) for field in fields(tree)}
        return replace(tree, **changed)
    return tree


def tensors_of(value: Number) -> list[Tensor]:
    """Returns the tensors of a value."""
    if isinstance(value, Masked):
        return [value.public, value.mask]
    assert isinstance(value, Additive)  # noqa: S101 - there are two kinds
    return [value.share]


def over(value: Number, tensors: list[Tensor], epoch: int) -> Number:
    """Returns the value with other tensors; what was opened in the segment carries masks of this epoch."""
    if isinstance(value, Masked):
        return Masked(value.source, tensors[0], tensors[1], value.scale, value.limit, epoch)
    return Additive(value.source, tensors[0], value.scale, value.limit)
