"""Products: with the server's matrices, and of masked values."""

from collections.abc import Callable, Sequence

import torch

from parties.decoding.cache import LayerCache
from parties.decoding.clusters import Selection
from parties.decoding.program import Program, parallel, staged
from parties.engines.fss.arithmetic import gates
from parties.engines.fss.arithmetic.multiplication import multiply
from parties.engines.fss.arithmetic.values import Additive, Masked
from parties.engines.fss.functions import norm, softmax
from parties.engines.fss.functions.norm import NormInput
from parties.engines.fss.functions.raw_scores import RawScores, raw_scores
from parties.engines.fss.programs.base import Programs
from parties.engines.fss.programs.spare_rows import step_keys
from parties.engines.limits import FEW_ROWS
from parties.engines.operations import MatrixProduct


def cut(*values: Masked) -> list[Masked]:
    """Truncates values to at most 18 fraction bits, so that truncation failures of products stay rare."""
    return [gates.truncate(v) if v.scale > softmax.WEIGHT_SCALE else v for v in values]


def matmul(x: Masked, y: Masked, limit: float) -> Program[Masked]:
    """Batched matrix product, opened with the fraction bits of both. 1 round."""
    x, y = cut(x, y)
    return (yield from gates.open_(gates.matmul(x, y, limit)))


class Products(Programs):
    """Products with the server's matrices, also of rows before their norm, and of two masked values."""

    def linear(self, x: Masked, name: str, columns: int | None = None) -> Program[Masked]:
        """Product with the server's matrix. 1 round."""
        y = self.matrices[name].apply(gates.truncate(x), self._limit_of(name), columns)
        return (yield from self._with_bias(y, name))

    def normalised_linear(self, rows: NormInput, eps: float, *products: MatrixProduct) -> Program[list[Masked]]:
        """Products of normalised rows with the server's matrices. 3 rounds for a few rows with `dcf`, else 4 or 5."""
        if rows.x.shape[0] > FEW_ROWS:
            return (yield from super().normalised_linear(rows, eps, *products))
        unscaled = [self.matrices[p.name].apply(rows.narrow, rows.unscaled.limit, p.columns) for p in products]
        root, *opened = yield from parallel(
            staged(self.meter, "norm", norm.row_roots(rows, eps)),
            *(staged(self.meter, p.stage, gates.open_(y)) for p, y in zip(products, unscaled, strict=True)),
        )
        scaled = (
            staged(self.meter, p.stage, self._scaled_after(y, root, p.name))
            for p, y in zip(products, opened, strict=True)
        )
        return (yield from parallel(*scaled))

    def _scaled_after(self, product: Masked, root: Masked, name: str) -> Program[Masked]:
        return (yield from self._with_bias(norm.scaled_after(product, root, self._limit_of(name)), name))

    def scored_projection(
        self,
        rows: NormInput,
        eps: float,
        products: Sequence[MatrixProduct],
        turn: Callable[[Masked], Masked],
        layer: LayerCache,
        selection: Selection | None = None,
    ) -> Program[tuple[Masked, Masked, Masked, list[Masked]]]:
        """See `Engine.scored_projection`. 3 rounds, scores included; with `prefix` as many as `normalised_linear`."""
        qkv, *others = ((p, self.matrices[p.name].apply(rows.narrow, rows.unscaled.limit, p.columns)) for p in products)
        kv_heads, _, head_dim = layer.k.shape
        keys, place = step_keys(self.source, layer, selection, layer.tokens + 1)

        def scored() -> Program[RawScores]:
            opened = yield from staged(self.meter, qkv[0].stage, gates.open_(qkv[1]))
            raw = raw_scores(opened, kv_heads // rows.x.shape[0], head_dim, turn, keys)
            return (yield from staged(self.meter, "scores", raw))

        root, raw, *opened = yield from parallel(
            staged(self.meter, "norm", norm.row_roots(rows, eps)),
            scored(),
            *(staged(self.meter, p.stage, gates.open_(y)) for p, y in others),
        )
        places = torch.arange(sum(part.shape[1] for part in keys))
        own = self.source.varying(lambda later: (places == place + later).long(), 0, 1.0)
        (row, scores), *scaled = yield from parallel(
            staged(self.meter, qkv[0].stage, raw.scaled(root, own, self._limit_of(qkv[0].name))),
            *(
                staged(self.meter, p.stage, self._scaled_after(y, root, p.name))
                for (p, _), y in zip(others, opened, strict=True)
            ),
        )
        return row[:kv_heads], row[kv_heads:], scores, scaled

    def _with_bias(self, y: Additive, name: str) -> Program[Masked]:
        """Opens a product, after its bias is added, if it has one."""
        if (bias := self.biases.get(f"{name}.bias")) is not None:
            y = (y + bias[: y.shape[1]].reshape(1, y.shape[1])).bounded(y.limit)
        return gates.truncate((yield from gates.open_(y)))

    def _limit_of(self, name: str) -> float:
        """The bound of products with a matrix."""
        return self._limit(name.rsplit(".", 1)[-1])

    def mul(self, x: Masked, y: Masked) -> Program[Masked]:
        """Elementwise product. 1 round."""
        limit = min(x.limit * y.limit, self._limit("product"))
        return gates.truncate((yield from gates.open_(multiply(cut(x, y), limit=limit))))

    def matmul(self, x: Masked, y: Masked) -> Program[Masked]:
        """Batched matrix product. 1 round."""
        return gates.truncate((yield from matmul(x, y, self._limit("product"))))
