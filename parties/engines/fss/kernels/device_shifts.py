"""`loops.checked_shift` on a GPU; recorded, it is an instruction of the tape machine."""

import torch
from torch import Tensor


def checked_shift(x: Tensor, shifted: Tensor, outside: Tensor, drop: int, edge: int) -> None:
    """Shifts [n] right by `drop` bits; sets a flag, [1], if an element is not in -edge .. edge - 1."""
    torch.bitwise_right_shift(x, drop, out=shifted)
    found = ((x < -edge) | (x >= edge)).any()
    outside.logical_or_(found.to(outside.device))
