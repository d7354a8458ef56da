"""Values of the engine: variables of the worker, and local work on them that has not been done yet.

A value is a node of a graph. Operators only add nodes; the engine's next operation compiles the nodes below it into its
program. A node is then a variable of the worker, and freed with the last reference to it.
"""

import json
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Tensor

_SHAPING = frozenset({"index", "reshape", "transpose"})


class SpuValue:
    """A secret or public value.

    Attributes:
        like: A tensor of the same shape, without memory.
        name: The variable of the worker; empty while the value is only a node.
        public: A constant's content; None if the value is secret or computed.
        operation: Name of the operation in the worker's table.
        arguments: What it is applied to.
        parameters: Its public parameters, plain values.
    """

    def __init__(
        self,
        like: Tensor,
        operation: str = "",
        arguments: "Sequence[SpuValue]" = (),
        parameters: Sequence[Any] = (),
        public: Tensor | None = None,
    ) -> None:
        self.like, self.public, self.name = like, public, ""
        self.operation, self.arguments, self.parameters = operation, tuple(arguments), tuple(parameters)

    @classmethod
    def constant(cls, content: Tensor) -> Self:
        """A public value."""
        return cls(torch.empty(content.shape, device="meta"), public=content.float())

    @property
    def shape(self) -> Sequence[int]:
        """Public shape."""
        return self.like.shape

    @property
    def pending(self) -> bool:
        """Whether the worker still has to compute it."""
        return not self.name and self.public is None

    def become(self, name: str, free: Callable[[str], None]) -> None:
        """Turns a node into a variable of the worker, which `free` frees."""
        self.name, self.arguments, self.parameters = name, (), ()
        weakref.finalize(self, free, name).atexit = False

    def __add__(self, other: Self) -> "SpuValue":
        return SpuValue(self.like + other.like, "add", (self, other))

    def __sub__(self, other: Self) -> "SpuValue":
        return SpuValue(self.like - other.like, "sub", (self, other))

    def __neg__(self) -> "SpuValue":
        return SpuValue(self.like, "neg", (self,))

    def __mul__(self, public: float | Tensor) -> "SpuValue":
        if isinstance(public, Tensor):
            other = SpuValue.constant(public)
            return SpuValue(self.like * other.like, "mul", (self, other))
        return SpuValue(self.like, "scale", (self,), (float(public),))

    def __getitem__(self, index: Any) -> "SpuValue":
        parts = index if isinstance(index, tuple) else (index,)
        if any(isinstance(part, Tensor | list) for part in parts):
            arrays = [torch.as_tensor(part) for part in parts]
            like = torch.empty(self.shape)[tuple(arrays)]
            taken = [array.tolist() for array in arrays]
            return SpuValue(torch.empty(like.shape, device="meta"), "take", (self,), (taken,))
        plain = [[part.start, part.stop, part.step] if isinstance(part, slice) else part for part in parts]
        return SpuValue(self.like[index], "index", (self,), (plain,))

    def reshape(self, *shape: int) -> "SpuValue":
        """The same elements in another shape."""
        like = self.like.reshape(*shape)
        return SpuValue(like, "reshape", (self,), (list(like.shape),))

    def transpose(self, first: int, second: int) -> "SpuValue":
        """Two axes swapped."""
        return SpuValue(self.like.transpose(first, second), "transpose", (self,), (first, second))

    def sum(self, dim: int) -> "SpuValue":
        """Sum over one axis, which disappears."""
        return SpuValue(self.like.sum(dim), "sum", (self,), (dim,))


def cat(values: Sequence[SpuValue], dim: int) -> SpuValue:
    """Concatenation."""
    like = torch.cat([value.like for value in values], dim)
    return SpuValue(like, "cat", values, (dim % like.dim(),))


def computed_once(values: Sequence[SpuValue]) -> list[SpuValue]:
    """The pending values below which nothing is worth keeping: what remains of `values` without their mere shaping.

    An operation's operands are kept as variables with its result: they are often used again, and each use would compute
    them once more.
    """
    found: dict[int, SpuValue] = {}
    for value in values:
        while value.pending and value.operation in _SHAPING:
            value = value.arguments[0]
        if value.pending:
            found[id(value)] = value
    return list(found.values())


@dataclass
class Graph:
    """The program that computes pending values.

    Attributes:
        inputs: Variables and constants, in order of use.
        nodes: Operation, positions of its arguments in inputs and nodes together, and parameters.
    """

    outputs: Sequence[SpuValue]
    inputs: list[SpuValue] = field(default_factory=list)
    nodes: list[SpuValue] = field(default_factory=list)

    def __post_init__(self) -> None:
        seen: set[int] = set()
        stack = [(value, False) for value in reversed(self.outputs)]
        while stack:
            value, ready = stack.pop()
            if ready:
                self.nodes.append(value)
            elif id(value) not in seen:
                seen.add(id(value))
                if value.pending:
                    stack.append((value, True))
                    stack.extend((argument, False) for argument in reversed(value.arguments))
                else:
                    self.inputs.append(value)

    def __str__(self) -> str:
        """The worker's form, the same for graphs that compute alike."""
        place = {id(value): index for index, value in enumerate([*self.inputs, *self.nodes])}
        return json.dumps(
            {
                "inputs": [(list(value.shape), value.public is not None) for value in self.inputs],
                "nodes": [
                    (node.operation, [place[id(argument)] for argument in node.arguments], node.parameters)
                    for node in self.nodes
                ],
                "outputs": [place[id(value)] for value in self.outputs],
            }
        )
