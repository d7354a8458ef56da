"""Values of the engine: variables of the worker, and local work on them that has not been done yet.

A value is a node of a graph. Operators only add nodes; the engine's next operation compiles the nodes below it into its
program. A node is then a variable of the worker, and freed with the last reference to it.
"""

import json
import math
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

_SHAPING = frozenset({"index", "reshape", "transpose"})


class SpuValue:
    """A secret or public value.

    Attributes:
        shape: Public shape.
        name: The variable of the worker; empty while the value is only a node.
        public: A constant's content; None if the value is secret or computed.
        operation: Name of the operation in the worker's table.
        arguments: What it is applied to.
        parameters: Its public parameters, plain values.
    """

    def __init__(
        self,
        shape: Sequence[int],
        operation: str = "",
        arguments: "Sequence[SpuValue]" = (),
        parameters: Sequence[Any] = (),
        public: Tensor | None = None,
    ) -> None:
        self.shape, self.public, self.name = tuple(shape), public, ""
        self.operation, self.arguments, self.parameters = operation, tuple(arguments), tuple(parameters)

    @classmethod
    def constant(cls, content: Tensor) -> Self:
        """A public value."""
        return cls(content.shape, public=content.float())

    @property
    def pending(self) -> bool:
        """Whether the worker still has to compute it."""
        return not self.name and self.public is None

    def become(self, name: str, free: Callable[[str], None]) -> None:
        """Turns a node into a variable of the worker, which `free` frees."""
        self.name, self.arguments, self.parameters = name, (), ()
        weakref.finalize(self, free, name).atexit = False

    def __add__(self, other: Self) -> "SpuValue":
        return SpuValue(together(self, other), "add", (self, other))

    def __sub__(self, other: Self) -> "SpuValue":
        return SpuValue(together(self, other), "sub", (self, other))

    def __neg__(self) -> "SpuValue":
        return SpuValue(self.shape, "neg", (self,))

    def __mul__(self, public: float | Tensor) -> "SpuValue":
        if isinstance(public, Tensor):
            other = SpuValue.constant(public)
            return SpuValue(together(self, other), "mul", (self, other))
        return SpuValue(self.shape, "scale", (self,), (float(public),))

    def __getitem__(self, index: Any) -> "SpuValue":
        parts = index if isinstance(index, tuple) else (index,)
        shape = torch.zeros(()).expand(self.shape)[parts].shape
        if any(isinstance(part, Tensor | list) for part in parts):
            return SpuValue(shape, "take", (self,), ([torch.as_tensor(part).tolist() for part in parts],))
        plain = [[part.start, part.stop, part.step] if isinstance(part, slice) else part for part in parts]
        return SpuValue(shape, "index", (self,), (plain,))

    def reshape(self, *shape: int) -> "SpuValue":
        """The same elements in another shape; -1 stands for what remains."""
        known = math.prod(size for size in shape if size != -1)
        whole = [math.prod(self.shape) // known if size == -1 else size for size in shape]
        return SpuValue(whole, "reshape", (self,), (whole,))

    def transpose(self, first: int, second: int) -> "SpuValue":
        """Two axes swapped."""
        shape = list(self.shape)
        shape[first], shape[second] = shape[second], shape[first]
        return SpuValue(shape, "transpose", (self,), (first, second))

    def sum(self, dim: int) -> "SpuValue":
        """Sum over one axis, which disappears."""
        shape = list(self.shape)
        del shape[dim]
        return SpuValue(shape, "sum", (self,), (dim,))


def together(*values: SpuValue) -> tuple[int, ...]:
    """The shape of values that are broadcast."""
    return np.broadcast_shapes(*(value.shape for value in values))


def product(x: SpuValue, y: SpuValue) -> tuple[int, ...]:
    """The shape of a batched matrix product."""
    return (*np.broadcast_shapes(x.shape[:-2], y.shape[:-2]), x.shape[-2], y.shape[-1])


def cat(values: Sequence[SpuValue], dim: int) -> SpuValue:
    """Concatenation."""
    shape = list(values[0].shape)
    shape[dim] = sum(value.shape[dim] for value in values)
    return SpuValue(shape, "cat", values, (dim % len(shape),))


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
