"""Operations that the tape machine fuses, as torch composes them, by the name of the instruction."""

from collections.abc import Callable

from torch import Tensor

FUSED: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "mul_add_64": lambda a, b, c: c + a * b,
    "mul_sub_64": lambda a, b, c: a * b - c,
    "sub_mul_64": lambda a, b, c: c * (a - b),
    "sub_add_64": lambda a, b, c: c - (b - a),
    "add_add_64": lambda a, b, c: a + b + c,
    "shr_and_64": lambda a, _, __: (a >> 5) & 63,
    "mul_total_64": lambda a, b, _: (a * b).sum(-1),
}
