"""The values inside what programs leave in a cache: nested tuples, dictionaries and dataclasses."""

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor

from parties.engines.fss.arithmetic.values import Additive, Masked, Number

_VALUES = (Masked, Additive)
_NO_VALUES = (type(None), int, float, str, bool, Tensor)
_FIELDS = "__dataclass_fields__"


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
        if (names := getattr(kind, _FIELDS, None)) is not None:
            parts: Any = [getattr(tree, name) for name in names]
        else:
            parts = tree.values() if kind is dict else tree
        for part in parts if isinstance(parts, Iterable) else ():
            _collect(part, found)


def mapped(tree: Any, function: Callable[[Number], Number]) -> Any:
    """Returns the tree with each value replaced."""
    kind = type(tree)
    if kind in _VALUES:
        return function(tree)
    if kind in _NO_VALUES:
        return tree
    if kind is dict:
        return {name: mapped(tree[name], function) for name in tree}
    if kind is tuple or kind is list:
        return kind([mapped(item, function) for item in tree])
    if hasattr(kind, "_fields"):
        return kind(*[mapped(item, function) for item in tree])
    if (names := getattr(kind, _FIELDS, None)) is not None:
        return kind(**{name: mapped(getattr(tree, name), function) for name in names})
    return tree


def look(tree: Any, epoch: int) -> Any:
    """Returns all of a tree that a program may depend on, but for the numbers in its values.

    Args:
        tree: The tree. Tensors and other objects in it look like themselves alone.
        epoch: The current epoch.
    """
    kind = type(tree)
    if kind in _VALUES:
        age = (tree.epoch == epoch, tree.epoch == Masked.CONSTANT) if kind is Masked else ()
        return (kind, tree.scale, tree.limit, tree.shape, age)
    if kind is Tensor:
        return (kind, id(tree))
    if kind is dict:
        return {name: look(tree[name], epoch) for name in tree}
    if (names := getattr(kind, _FIELDS, None)) is not None:
        return (kind, [look(getattr(tree, name), epoch) for name in names])
    if isinstance(tree, (tuple, list)):
        return (kind, [look(item, epoch) for item in tree])
    return (kind, tree if kind in _NO_VALUES else id(tree))


def tensors_of(value: Number) -> list[Tensor]:
    """Returns the tensors of a value."""
    if type(value) is Masked:
        return [value.public, value.mask]
    assert type(value) is Additive  # noqa: S101 - there are two kinds
    return [value.share]


def over(value: Number, tensors: list[Tensor], epoch: int) -> Number:
    """Returns the value with other tensors; what was opened in the segment carries masks of this epoch."""
    if type(value) is Masked:
        return Masked(value.source, tensors[0], tensors[1], value.scale, value.limit, epoch)
    return Additive(value.source, tensors[0], value.scale, value.limit)
