"""Meta tensors, which have a shape and no elements: a program on them costs neither memory nor time.

They are on PyTorch's meta device, where a function gives a tensor of the right shape. A whole model can make a dry run
that way, to count what it would send, as far as nothing depends on the numbers.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_ELEMENTWISE = frozenset({
    "add", "sub", "rsub", "mul", "neg", "maximum", "and", "or", "lshift", "rshift", "invert", "masked_fill", "softmax"
})  # fmt: skip
"""Functions whose result has the broadcast shape of their operands and the type of the first; PyTorch's own shape
inference takes ten times as long, as it does for `cat`."""


class MetaTensors(TorchFunctionMode):
    """While active, public tensors may meet meta tensors."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Called by PyTorch in place of each function: public operands become meta tensors where another one is."""
        if function.__name__ == "__get__":  # of an attribute
            return function(*args)
        kwargs = kwargs or {}
        if not _is_meta(args) or function in (Tensor.to, Tensor.__getitem__):
            return function(*args, **kwargs)
        if function.__name__.strip("_") in _ELEMENTWISE:
            operands = [argument for argument in args if isinstance(argument, Tensor)]
            return operands[0].new_empty(np.broadcast_shapes(*(o.shape for o in operands)), device="meta")
        if function is torch.cat:
            return _joined(*args, **kwargs)
        return function(*_to_meta(args), **kwargs)


def meta_tensor(shape: Sequence[int], dtype: torch.dtype = torch.int64) -> Tensor:
    """A tensor with a shape and no elements."""
    return torch.empty(tuple(shape), dtype=dtype, device="meta")


def _is_meta(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.is_meta
    return isinstance(value, list | tuple) and any(map(_is_meta, value))


def _to_meta(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value if value.is_meta else value.to("meta")
    return type(value)(map(_to_meta, value)) if type(value) in (list, tuple) else value


def _joined(parts: Sequence[Tensor], dim: int = 0) -> Tensor:
    shape = list(parts[0].shape)
    shape[dim] = sum(part.shape[dim] for part in parts)
    return parts[0].new_empty(shape, device="meta")
