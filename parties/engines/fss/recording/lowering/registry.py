"""Instructions for aten operations, by the name of the operation without its overload.

A lowering gets the notebook, the output as a view, and the arguments of the operation. In-place and `out=` forms share
the lowering of the plain one. What raises `Unsupported` is noted as a call.
"""

from collections.abc import Callable, Sequence

import torch

from parties.engines.fss.recording.memory import View
from parties.engines.fss.recording.notes import Unsupported
from parties.engines.fss.recording.opcodes import Op

Lowering = Callable[..., None]
LOWERINGS: dict[str, Lowering] = {}
KERNELS: dict[Callable[..., None], Lowering] = {}
"""Instructions for kernels, by the function that `kernels.call` gets."""
WIDE, OCTET, BOOL = torch.int64, torch.uint8, torch.bool


def lowers(*names: str) -> Callable[[Lowering], Lowering]:
    """Registers the function of one or more operations."""

    def register(function: Lowering) -> Lowering:
        LOWERINGS.update(dict.fromkeys(names, function))
        return function

    return register


def opcode(name: str, dtype: torch.dtype) -> Op:
    """Returns the instruction for numbers of a dtype.

    Raises:
        Unsupported: There is none.
    """
    width = {WIDE: 64, OCTET: 8, BOOL: 8}.get(dtype)
    try:
        return Op[f"{name}_{width}"]
    except KeyError:
        raise Unsupported from None


def reshaped(view: View, shape: Sequence[int], strides: Sequence[int]) -> View:
    """Returns a view of the same start."""
    return View(view.buffer, view.offset, view.dtype, tuple(shape), tuple(strides))
