"""`loops.checked_shift` on a GPU; recorded, it is an instruction of the tape machine."""

from typing import Any

import torch
from torch import Tensor


def checked_shift(x: Tensor, shifted: Tensor, outside: Any, drop: int, edge: int) -> None:
    """Shifts [n] right by `drop` bits; sets a flag, [1], if an element is not in -edge .. edge - 1.

    The flag is a tensor on the GPU or, while a segment is recorded, a NumPy array over pinned memory of the host.
    """
    torch.bitwise_right_shift(x, drop, out=shifted)
    found = ((x < -edge) | (x >= edge)).any()
    outside |= found if isinstance(outside, Tensor) else found.item()
