"""The `spu` engine: every operation is a program of SPU, compiled once per shape."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import cache
from typing import Any, ClassVar, Self, TypeVar

import torch
from torch import Tensor

from parties.decoding.batch import Caches
from parties.decoding.cache import LayerCache
from parties.decoding.clusters import Selection
from parties.decoding.program import Program, eager, run, staged
from parties.engines.base import Engine, Shapes
from parties.engines.spu.environment import python
from parties.engines.spu.process import Worker
from parties.engines.spu.protocols import PROTOCOLS
from parties.engines.spu.sharing import CLIENT, SERVER, Sharing
from parties.engines.spu.values import SpuValue, cat, computed_once, product, together
from parties.errors import Unsupported
from parties.metering.meter import StageMeter
from parties.options import SpuOptions
from parties.randomness import uniform
from parties.transport.mesh import Mesh

T = TypeVar("T")


class SpuEngine(Engine):
    """One of SPU's parties.

    Args:
        role: The party's role; `dealer` only where a third party computes.
        mesh: Links to the others.
        meter: The party's stage meter.

    Attributes:
        options: Protocol, number format and choices of the class; `of` makes one with others.

    Raises:
        Unsupported: The host has no SPU, or the links have TLS, which SPU's own would not have.
    """

    name = "spu"
    verifies = False
    trust_model = PROTOCOLS[SpuOptions().protocol].trust_model
    devices = ("cpu",)
    tolerance = 0.5
    masked_score = -1e3
    options: ClassVar[SpuOptions] = SpuOptions()

    @classmethod
    @cache
    def of(cls, options: SpuOptions) -> type[Self]:
        """The engine with the given options, which determine its trust model and the form of its shares."""
        facts = {"options": options, "trust_model": PROTOCOLS[options.protocol].trust_model}
        return type(cls.__name__, (cls,), facts)

    def __init__(self, role: str, mesh: Mesh, meter: StageMeter) -> None:
        super().__init__(meter)
        if mesh.secured:
            raise Unsupported("engine 'spu' has links of its own, without TLS; run it on a network with tls: false")
        roles = PROTOCOLS[self.options.protocol].roles
        with meter.stage("setup.seeds"):
            self._sharing = Sharing(role, roles, mesh, self.options.fxp)
            self._worker = Worker(
                roles, role, self.options.model_dump(include={"protocol", "field", "fxp"}), mesh, meter
            )
        self._parameters: dict[str, SpuValue] = {}

    @classmethod
    def require(cls) -> None:
        """Checks that this host has SPU.

        Raises:
            Unsupported: It has none.
        """
        python()

    def run_segment(self, program: Callable[[], Program[T]], caches: Caches, name: Hashable = None) -> T:  # noqa: ARG002
        """Runs a segment and computes what it left to compute in the caches, so that graphs end with it."""
        result = run(program())
        values = [value for layer in caches.layers for value in layer.values().values()]
        rows = [row for layer in caches.layers for rows in layer.rows for row in (rows.x, rows.for_norm)]
        self._worker.compute([*values, *rows])
        return result

    # -- values in and out ---------------------------------------------------------------------------------------------

    @eager
    def install(self, shapes: Shapes, weights: Mapping[str, Tensor] | None) -> None:
        """Shares the weights; in ABY3 one part of each is sent to the client, and otherwise nothing."""
        for name, shape in shapes.items():
            shares = self._sharing.enter_in_parts(SERVER, None if weights is None else weights[name], shape)
            self._parameters[name] = self._worker.put(shares, shape)

    def public(self, tensor: Tensor) -> Tensor:
        """The tensor in the format of constants."""
        return tensor.float()

    def constant(self, tensor: Tensor) -> SpuValue:
        """A value that the worker gets with the program."""
        return SpuValue.constant(tensor)

    def adopt(self, share: Tensor) -> SpuValue:
        """A value from the summands of client and server; a third party passes zeros."""
        return self._worker.put([self._sharing.adopt(share)], share.shape)

    def export(self, value: SpuValue) -> Tensor:
        """This party's summand of two, int64."""
        return self._sharing.export(self._worker.get(value))

    @classmethod
    def split(cls, tensor: Tensor) -> tuple[Tensor, Tensor]:
        """Two summands of the fixed-point encoding, from a cryptographic generator."""
        mask = uniform(*tensor.shape)
        encoded: Tensor = (tensor.double() * 2**cls.options.fxp).round().long()
        return mask, encoded - mask

    @classmethod
    def combine(cls, parts: tuple[Tensor, Tensor]) -> Tensor:
        """The sum, divided by the scale."""
        opened: Tensor = (parts[0] + parts[1]).double() / 2**cls.options.fxp
        return opened

    @eager
    def embed(self, tokens: Sequence[int] | None, count: int) -> SpuValue:
        """One-hot rows, shared by the client, times the shared embedding."""
        table = self._parameters["embed"]
        shape, rows = (count, table.shape[0]), None
        if tokens is not None:
            rows = torch.zeros(shape)
            rows[torch.arange(count), torch.tensor(tokens)] = 1
        hot = self._worker.put(self._sharing.enter_in_parts(CLIENT, rows, shape), shape)
        return self._operation("matmul", (hot, table), product(hot, table))

    @eager
    def argmax(self, logits: SpuValue) -> SpuValue:
        """SPU's argmax."""
        return self._operation("argmax", (logits,), logits.shape[:-1])

    def open_index(self, index: SpuValue) -> list[int] | None:
        """The index, opened to the client alone."""
        opened = self._sharing.open_to_client(self._worker.get(index))
        return None if opened is None else [int(number) for number in self._sharing.decode(opened)]

    @eager
    def reveal(self, value: SpuValue) -> Tensor | None:
        """The opened value, at the client."""
        opened = self._sharing.open_to_client(self._worker.get(value))
        return None if opened is None else self._sharing.decode(opened)

    # -- operations ----------------------------------------------------------------------------------------------------

    def _operation(self, name: str, operands: Sequence[SpuValue], shape: Sequence[int], *parameters: Any) -> SpuValue:
        """Runs an operation, with the local work that its operands still need."""
        result = SpuValue(shape, name, operands, parameters)
        self._worker.compute([*computed_once(operands), result])
        return result

    @eager
    def linear(self, x: SpuValue, name: str, columns: int | None = None) -> SpuValue:
        """Product with the shared matrix."""
        matrix = self._parameters[name] if columns is None else self._parameters[name][:, :columns]
        y = self._operation("matmul", (x, matrix), product(x, matrix))
        bias = self._parameters.get(f"{name}.bias")
        return y if bias is None else y + (bias if columns is None else bias[:columns])

    def parameter(self, name: str) -> SpuValue:
        """A shared parameter."""
        return self._parameters[name]

    @eager
    def mul(self, x: SpuValue, y: SpuValue) -> SpuValue:
        """Elementwise product."""
        return self._operation("mul", (x, y), together(x, y))

    @eager
    def matmul(self, x: SpuValue, y: SpuValue) -> SpuValue:
        """Batched matrix product."""
        return self._operation("matmul", (x, y), product(x, y))

    def to_norm(self, x: SpuValue, *, centre: bool) -> SpuValue:
        """The rows, less their mean if `centre`."""
        return x - x.sum(1).reshape(x.shape[0], 1) * (1 / x.shape[1]) if centre else x

    @eager
    def normalise(self, rows: SpuValue, eps: float) -> SpuValue:
        """Rows times SPU's inverse square root of their mean square."""
        return self._operation("normalise", (rows,), rows.shape, eps)

    @eager
    def activation(self, x: SpuValue, kind: str) -> SpuValue:
        """Piecewise polynomials, one for SiLU and one for both kinds of GELU."""
        return self._operation("silu" if kind == "silu" else "gelu", (x,), x.shape)

    @eager
    def soft_cap(self, x: SpuValue, cap: float) -> SpuValue:
        """A tanh from the sigmoid."""
        return self._operation("soft_cap", (x,), x.shape, cap)

    @eager
    def softmax(self, scores: SpuValue, mask: Tensor | None = None) -> SpuValue:
        """Exponentials of the scores less their largest, times the reciprocal of their sum."""
        operands = (scores,) if mask is None else (scores, SpuValue.constant(mask))
        return self._operation("softmax", operands, scores.shape)

    @eager
    def maximum(self, x: SpuValue, y: SpuValue) -> SpuValue:
        """SPU's maximum."""
        return self._operation("maximum", (x, y), together(x, y))

    @eager
    def largest(self, x: SpuValue, dim: int) -> SpuValue:
        """SPU's maximum over an axis."""
        shape = list(x.shape)
        shape[dim] = 1
        return self._operation("largest", (x,), shape, dim)

    @eager
    def negative(self, x: SpuValue) -> SpuValue:
        """SPU's comparison with zero."""
        return self._operation("negative", (x,), x.shape)

    @eager
    def inverse_root(self, x: SpuValue) -> SpuValue:
        """SPU's inverse square root."""
        return self._operation("inverse_root", (x,), x.shape)

    def cat(self, values: Sequence[SpuValue], dim: int) -> SpuValue:
        """Concatenation, local."""
        return cat(values, dim)

    # -- selection: one-hot rows [groups, count, n] --------------------------------------------------------------------

    @eager
    def keep_top(self, scores: SpuValue, count: int) -> SpuValue:
        """Compares all pairs; the ranks below `count` are kept."""
        rows = scores.reshape(-1, scores.shape[-1])
        return self._operation("keep_top", (rows,), _selected(rows, count), count)

    @eager
    def kept_from(self, flags: SpuValue, count: int) -> SpuValue:
        """A prefix sum of the flags gives each row its place."""
        return self._operation("kept_from", (flags,), _selected(flags, count), count)

    @eager
    def flags(self, kept: SpuValue, n: int) -> SpuValue:  # noqa: ARG002 - the rows have that length
        """The sum of the one-hot rows."""
        return kept.sum(1)

    @eager
    def compact(self, kept: SpuValue, rows: Sequence[SpuValue]) -> list[SpuValue]:
        """One-hot product with every row."""
        return [self._operation("matmul", (kept, row), product(kept, row)) for row in rows]

    @eager
    def top_clusters(
        self,
        coarse: SpuValue,
        fine: SpuValue,
        parents: Sequence[int | None],
        k_coarse: int,
        k_fine: int,
        *,
        fraction_bits: int = 16,  # noqa: ARG002 - one way to rank
        spare_rounds: bool = False,  # noqa: ARG002 - one way to rank
    ) -> SpuValue:
        """Ranks of the coarse candidates, then of the fine ones, of which children of losers are lowered."""
        if k_coarse:
            given = (list(parents), k_coarse, k_fine)
            return self._operation("top_two_levels", (coarse, fine), _selected(fine, k_fine), *given)
        orphans = [i for i, parent in enumerate(parents) if parent is None]
        if len(orphans) < len(parents):
            low = torch.tensor([0.0 if parent is None else self.masked_score * 10 for parent in parents])
            fine = fine + SpuValue.constant(low)
        return self._operation("top_one_level", (fine,), _selected(fine, k_fine), k_fine)

    @eager
    def pick(self, selected: SpuValue, blocks: SpuValue) -> SpuValue:
        """One-hot product with the clusters of each head's group (MPCache's Pi_Gather)."""
        heads, k, candidates = selected.shape
        grouped = selected.reshape(blocks.shape[0], heads // blocks.shape[0] * k, candidates)
        picked = self._operation("matmul", (grouped, blocks), product(grouped, blocks))
        return picked.reshape(heads, k, blocks.shape[2])

    def attend_selected(self, q: SpuValue, layer: LayerCache, selection: Selection) -> Program[SpuValue]:
        """With `gather: rows` as the paper does it; with `gather: scores` no row of the cache is moved."""
        by_scores = self.options.gather == "scores" and selection.count and selection.selected.shape[0] == q.shape[0]
        attend = self._attend_by_scores if by_scores else super().attend_selected
        mixed: SpuValue = yield from attend(q, layer, selection)
        return mixed

    def _attend_by_scores(self, q: SpuValue, layer: LayerCache, selection: Selection) -> Program[SpuValue]:
        """Scores all candidates, fetches the scores of the chosen ones, and scatters their weights back."""
        hot, (start, stop) = selection.selected, selection.candidates
        heads, count, clusters = hot.shape
        always = [self.cat([rows[:, a:b] for a, b in selection.always], dim=1) for rows in (layer.k, layer.v)]
        near = yield from staged(self.meter, "scores", self.scores(q, always[0]))
        far = yield from staged(self.meter, "scores", self.scores(q, layer.k[:, start:stop]))
        blocks = far.reshape(heads, clusters, selection.size)
        chosen = yield from staged(self.meter, "gather", self.matmul(hot, blocks))
        scores = self.cat([near, chosen.reshape(heads, 1, count * selection.size)], dim=2)
        weights = yield from staged(self.meter, "softmax", self.softmax(scores))
        cut = near.shape[2]
        back = weights[:, :, cut:].reshape(heads, count, selection.size)
        spread = yield from staged(self.meter, "gather", self.matmul(hot.transpose(1, 2), back))
        joined = self.cat([weights[:, :, :cut], spread.reshape(heads, 1, stop - start)], dim=2)
        rows = self.cat([always[1], layer.v[:, start:stop]], dim=1)
        mixed: SpuValue = yield from staged(self.meter, "attend", self.weigh(joined, rows))
        return mixed


def _selected(rows: SpuValue, count: int) -> tuple[int, ...]:
    """The shape of the one-hot rows of `count` elements of each of [groups, n]."""
    return rows.shape[0], count, rows.shape[1]
