"""Meta tensors: they have a shape and no elements, so that a program on them takes neither memory nor time.

They are on PyTorch's meta device, where a function returns a tensor of the right shape. A dry run of a whole model on
them shows what it would send, since that depends on shapes alone.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_ELEMENTWISE = frozenset({"add", "sub", "rsub", "mul", "neg", "maximum", "and", "or", "lshift", "rshift"})
"""Functions whose result has the broadcast shape of their operands; PyTorch's own shape inference takes ten times as
long, as it does for `cat`."""


class MetaMode(TorchFunctionMode):
    """While active, meta tensors may be combined with tensors on other devices and converted to NumPy."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Called by PyTorch in place of each function: if an operand is a meta tensor, all are moved to that device."""
        kwargs = kwargs or {}
        if not _has_meta(args) or function in (Tensor.to, Tensor.__getitem__):
            return function(*args, **kwargs)
        if function is Tensor.numpy:
            return np.broadcast_to(np.int64(0), args[0].shape)
        if function.__name__.strip("_") in _ELEMENTWISE:
            operands = [argument for argument in args if isinstance(argument, Tensor)]
            return operands[0].new_empty(np.broadcast_shapes(*(o.shape for o in operands)), device="meta")
        if function is torch.cat:
            return _joined(*args, **kwargs)
        return function(*_on_meta(args), **kwargs)


def meta_tensor(shape: Sequence[int], dtype: torch.dtype = torch.int64) -> Tensor:
    """Returns a meta tensor."""
    return torch.empty(tuple(shape), dtype=dtype, device="meta")


def _has_meta(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.is_meta
    return isinstance(value, list | tuple) and any(map(_has_meta, value))


def _on_meta(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.to("meta")
    return type(value)(map(_on_meta, value)) if type(value) in (list, tuple) else value


def _joined(parts: Sequence[Tensor], dim: int = 0) -> Tensor:
    shape = list(parts[0].shape)
    shape[dim] = sum(part.shape[dim] for part in parts)
    return parts[0].new_empty(shape, device="meta")
