"""The values inside what programs leave in a cache: nested tuples, dictionaries and dataclasses."""

from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any

from torch import Tensor

from parties.engines.fss.arithmetic.values import Additive, Masked, Number


def values_in(tree: Any) -> Iterator[Number]:
    """Iterates over the masked and additive values."""
    if isinstance(tree, Number):
        yield tree
    elif isinstance(tree, dict):
        for item in tree.values():
            yield from values_in(item)
    elif isinstance(tree, list | tuple):
        for item in tree:
            yield from values_in(item)
    elif is_dataclass(tree) and not isinstance(tree, type):
        for field in fields(tree):
            yield from values_in(getattr(tree, field.name))


def mapped(tree: Any, function: Callable[[Number], Number]) -> Any:
    """Returns the tree with each value replaced."""
    if isinstance(tree, Number):
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
