"""How compiled loops are called: the one place where tensors become arrays."""

from collections.abc import Callable
from typing import Any

from torch import Tensor


def call(function: Callable[..., None], *arguments: Any) -> None:
    """Calls a function of arrays and numbers on tensors, which it reads and writes in place.

    Args:
        function: A compiled loop, or a plain function on public numbers.
        arguments: Contiguous tensors on the CPU, passed as NumPy views of the same memory, and numbers.
    """
    function(*(argument.numpy() if isinstance(argument, Tensor) else argument for argument in arguments))
