"""The values of an engine, and the operations on them that need communication.

A *value* is whatever the engine computes on: a float tensor, a CrypTen tensor, a masked value. Linear work with public
numbers is done on values directly, through the operators of `Value`; it never talks to a peer. Everything else is a
method that returns a program (see `parties.decoding.program`).
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple, Protocol, Self

import torch

from parties.decoding.program import Program, parallel, staged
from parties.metering.meter import StageMeter


class Value(Protocol):
    """The operations on a value that need no engine: local and linear, with public operands."""

    @property
    def shape(self) -> Sequence[int]:
        """Public shape."""

    def __add__(self, other: Self) -> Self: ...
    def __sub__(self, other: Self) -> Self: ...
    def __neg__(self) -> Self: ...
    def __mul__(self, public: float | torch.Tensor) -> Self: ...
    def __getitem__(self, index: Any) -> Self: ...
    def reshape(self, *shape: int) -> Self:
        """The same elements in another shape."""

    def transpose(self, first: int, second: int) -> Self:
        """Two axes swapped."""

    def sum(self, dim: int) -> Self:
        """Sum over one axis, which disappears."""


class MatrixProduct(NamedTuple):
    """A product with an installed matrix.

    Attributes:
        name: The matrix; see `Operations.linear`.
        stage: The stage of the product.
        columns: Number of the matrix's first columns; None for all.
    """

    name: str
    stage: str
    columns: int | None = None


class Operations(ABC):
    """The operations of decoder and policies; results are the same in every engine except for rounding.

    Attributes:
        block: Rows by which a layer's cache grows while tokens are decoded; 1 if shapes need not last.
        masked_score: An attention score that counts for nothing next to any other score that the engine takes.
        meter: The party's stage meter.
    """

    masked_score: ClassVar[float]
    block: ClassVar[int] = 1
    meter: StageMeter

    @abstractmethod
    def constant(self, tensor: torch.Tensor) -> Any:
        """A value whose content is public: for sums with secret values, since `Value` only adds values. Local."""

    def bounded(self, value: Any, limit: float) -> Any:  # noqa: ARG002
        """The same value, of which all |x| are below a public `limit`: engines may compare and cut it the cheaper."""
        return value

    # -- products and functions ----------------------------------------------------------------------------------------

    @abstractmethod
    def linear(self, x: Any, name: str, columns: int | None = None) -> Program[Any]:
        """Product with an installed matrix, plus `name.bias` where there is one: [n, in] -> [n, out].

        Args:
            x: The rows.
            name: The matrix.
            columns: Number of its first columns to compute; None for all.
        """

    @abstractmethod
    def parameter(self, name: str) -> Any:
        """An installed parameter as a value."""

    @abstractmethod
    def mul(self, x: Any, y: Any) -> Program[Any]:
        """Elementwise product, with broadcasting."""

    @abstractmethod
    def matmul(self, x: Any, y: Any) -> Program[Any]:
        """Batched matrix product: [..., a, b] @ [..., b, c]."""

    def residual(self, x: Any) -> Any:
        """Rows as they leave a layer, [n, d]; an engine may declare one bound for those of all layers."""
        return x

    @abstractmethod
    def to_norm(self, x: Any, *, centre: bool) -> Any:
        """Rows [n, d], less their mean if `centre`, in the form that `normalise` takes.

        Local. It belongs to the program that makes the rows: an engine that rounds here may rely on fresh masks.
        """

    @abstractmethod
    def normalise(self, rows: Any, eps: float) -> Program[Any]:
        """Each row of [n, d], as `to_norm` made it, over sqrt(mean square + eps).

        Gains and biases of the model's norms are folded into the matrices that follow (`parties.models.folding`).
        """

    def normalised_linear(self, rows: Any, eps: float, *products: MatrixProduct) -> Program[list[Any]]:
        """Each `linear` of `normalise`; an engine may divide after the products.

        Args:
            rows: See `normalise`.
            eps: See `normalise`.
            products: The matrices.
        """
        normal = yield from staged(self.meter, "norm", self.normalise(rows, eps))
        linear = (staged(self.meter, p.stage, self.linear(normal, p.name, p.columns)) for p in products)
        return (yield from parallel(*linear))

    @abstractmethod
    def activation(self, x: Any, kind: str) -> Program[Any]:
        """`silu`, `gelu_tanh` or `gelu`, elementwise."""

    def gated_activation(self, gate: Any, x: Any, kind: str) -> Program[Any]:
        """`activation` of a gate, times x, elementwise (Shazeer, arXiv 2002.05202); an engine may fuse the two."""
        return (yield from self.mul((yield from self.activation(gate, kind)), x))

    @abstractmethod
    def soft_cap(self, x: Any, cap: float) -> Program[Any]:
        """Computes cap tanh(x / cap), elementwise, for a public cap (Gemma 2, arXiv 2408.00118)."""

    @abstractmethod
    def softmax(self, scores: Any, mask: torch.Tensor | None = None) -> Program[Any]:
        """Softmax over the last axis; `mask` is public, broadcasts, and is True where a score counts."""

    @abstractmethod
    def maximum(self, x: Any, y: Any) -> Program[Any]:
        """Elementwise maximum."""

    def largest(self, x: Any, dim: int) -> Program[Any]:
        """Maximum over an axis, which stays with length 1, by halving: log2 levels of `maximum`."""
        axis = [slice(None)] * len(x.shape)

        def part(start: int, stop: int) -> Any:
            axis[dim] = slice(start, stop)
            return x[tuple(axis)]

        while (length := x.shape[dim]) > 1:
            half = length // 2
            larger = yield from self.maximum(part(0, half), part(half, 2 * half))
            x = self.cat([larger, part(2 * half, length)], dim) if length % 2 else larger
        return x

    @abstractmethod
    def negative(self, x: Any) -> Program[Any]:
        """1 where x < 0, else 0, elementwise, as a value."""

    @abstractmethod
    def inverse_root(self, x: Any) -> Program[Any]:
        """1 / sqrt(x), elementwise, for x from 2^-10 to 2^14."""

    @abstractmethod
    def cat(self, values: Sequence[Any], dim: int) -> Any:
        """Concatenation, local."""

    def lengthened(self, rows: Any, count: int) -> Any:
        """Rows [heads, n, d] followed by `count` rows of zeros, local."""
        heads, _, d = rows.shape
        return self.cat([rows, self.constant(torch.zeros(heads, count, d))], dim=1)

    def written(self, rows: Any, new: Any, place: int) -> Any:
        """Rows [heads, n, d] with m rows [heads, m, d] from `place` on; later tokens write to later places. Local."""
        return self.cat([rows[:, :place], new, rows[:, place + new.shape[1] :]], dim=1)

    def rows_from(self, rows: Any, first: int, count: int) -> Any:
        """Rows first .. first + count - 1 of [n, d]; later tokens take later rows. Local."""
        return rows[first : first + count]

    def to_cache(self, value: Any) -> Any:
        """A value in the form that the engine caches, local."""
        return value

    # -- selection -----------------------------------------------------------------------------------------------------

    @abstractmethod
    def keep_top(self, scores: Any, count: int) -> Program[Any]:
        """A handle on the `count` highest of each row of `scores`, in their original order.

        Args:
            scores: [n], one choice for all heads, or [groups, n], one for each head.
            count: Number of rows to keep, 1 to n; among equals the lower index is kept.
        """

    @abstractmethod
    def compact(self, kept: Any, rows: Sequence[Any]) -> Program[list[Any]]:
        """Each of `rows` [heads, n, d] cut to the rows that were kept, in order: [heads, count, d].

        A handle with one choice serves any number of heads; one with several, as many heads as it has.
        """

    @abstractmethod
    def flags(self, kept: Any, n: int) -> Program[Any]:
        """The flags of a handle as a value: 1 for kept rows and 0 for the others, [groups, n]."""

    def kept_from(self, flags: Any, count: int) -> Program[Any]:
        """A handle on the rows whose flag is 1: `flags` [groups, n], of which `count` in each row are 1."""
        return self.keep_top(flags, count)

    @abstractmethod
    def top_clusters(
        self,
        coarse: Any,
        fine: Any,
        parents: Sequence[int | None],
        k_coarse: int,
        k_fine: int,
        *,
        fraction_bits: int = 16,
        spare_rounds: bool = False,
    ) -> Program[Any]:
        """Two-level choice for each head; which clusters won stays secret.

        Args:
            coarse: Similarities of the coarse candidates, [heads, a].
            fine: Similarities of the fine candidates, [heads, b].
            parents: For each fine candidate its coarse one, or None if it always competes. Public.
            k_coarse: Coarse candidates that survive.
            k_fine: Fine candidates chosen among the children of survivors and those without parent; at least 1.
            fraction_bits: Fraction bits by which candidates differ; an engine may rank numbers that differ by less as
                equal, and so the cheaper.
            spare_rounds: Whether rounds do not count, since a longer program runs in parallel.

        Returns:
            A handle for `pick`. Among equals the lower index wins.
        """

    @abstractmethod
    def pick(self, selected: Any, blocks: Any) -> Program[Any]:
        """The chosen blocks of [kv_heads, b, m] for each query head: [heads, k_fine, m], in any order."""
