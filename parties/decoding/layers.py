"""The layers of a decoder-only transformer but for attention, written once for all engines.

A layer is x + O attention(norm x), then x + D mlp(norm x). Which norm, which positions, which activation and what else
a family of models has follows from `ModelSpec`; no family has code of its own. Parameters are those of
`parties.models.folding`.
"""

from typing import Any

from parties.decoding.cache import Rows
from parties.decoding.positions import rotated
from parties.decoding.program import Program, staged
from parties.engines.base import Engine
from parties.engines.operations import MatrixProduct
from parties.models.spec import ModelSpec


class Layers:
    """The parts of a layer before and after attention, and queries and keys with their positions.

    They know neither a cache nor a policy.

    Args:
        engine: The engine, with the model installed.
        spec: The model.
    """

    def __init__(self, engine: Engine, spec: ModelSpec) -> None:
        self.engine, self.spec = engine, spec

    def rows(self, x: Any) -> Rows:
        """Rows [n, hidden] as they enter a layer; in the program that makes them (`Engine.to_norm`)."""
        with self.engine.meter.stage("norm"):
            return Rows(x, self.engine.to_norm(x, centre=self.spec.architecture.norm == "layer"))

    def normalise(self, rows: Rows) -> Program[Any]:
        """The normalised rows, [n, hidden], without the norm's gain."""
        return staged(self.engine.meter, "norm", self.engine.normalise(rows.for_norm, self.spec.norm_eps))

    def project(self, rows: Rows, *products: MatrixProduct) -> Program[list[Any]]:
        """The normalised rows times matrices; for `qkv` queries, keys and values, concatenated, before positions."""
        return self.engine.normalised_linear(rows.for_norm, self.spec.norm_eps, *products)

    def positioned(
        self, layer: int, x: Any, position: int, length: int | None, stage: str, lanes: int = 1
    ) -> Program[Any]:
        """Queries and keys, or queries alone, of each lane, with their norms and their positions, if any.

        [lanes * heads, n, head_dim], the heads of the first lane first.
        """
        spec, (heads, n, d) = self.spec, x.shape
        if spec.architecture.query_key_norm:
            normal = yield from self.normalise(self.rows(x.reshape(heads * n, d)))
            gain = self.engine.parameter(f"layers.{layer}.qk_gain")[: heads // lanes]
            by_lane = normal.reshape(lanes, heads // lanes, n, d)
            x = (yield from staged(self.engine.meter, "norm", self.engine.mul(by_lane, gain))).reshape(heads, n, d)
        if (rope := spec.rope(layer)) is not None:
            with self.engine.meter.stage(stage):
                x = rotated(self.engine, x, rope, position, length)
        return x

    def finish(self, layer: int, rows: Rows, mixed: Any) -> Program[Rows]:
        """Output projection and feed-forward part of a layer, with both residuals.

        Args:
            layer: Index of the layer.
            rows: The rows that entered the layer, [n, hidden]; a parallel MLP reads them, too.
            mixed: The output of attention, [heads, n, head_dim].
        """
        engine, at = self.engine, f"layers.{layer}"
        joined = mixed.transpose(0, 1).reshape(rows.shape[0], self.spec.n_heads * self.spec.head_dim)
        out = yield from staged(engine.meter, "out_proj", engine.linear(joined, f"{at}.o"))
        x = rows.x + (yield from self._after(f"{at}.attn_gain", out))
        if not self.spec.parallel:
            rows = self.rows(x)
        inner = yield from (self._gated(at, rows) if self.spec.architecture.gated else self._mlp(at, rows))
        down = yield from staged(engine.meter, "down", engine.linear(inner, f"{at}.down"))
        return self.rows(engine.residual(x + (yield from self._after(f"{at}.mlp_gain", down))))

    def _after(self, gain: str, x: Any) -> Program[Any]:
        """The output of attention or MLP as it is added to the residual: normalised in families with post-norms."""
        if not self.spec.architecture.post_norms:
            return x
        return (yield from self._gain(gain, (yield from self.normalise(self.rows(x)))))

    def _gain(self, name: str, normal: Any) -> Program[Any]:
        """Normalised rows times the gain of their norm, where no matrix follows that could hold it."""
        return staged(self.engine.meter, "norm", self.engine.mul(normal, self.engine.parameter(name)))

    def _gated(self, at: str, rows: Rows) -> Program[Any]:
        """f(gate(x)) * up(x) (arXiv 2002.05202)."""
        engine, inner = self.engine, self.spec.intermediate
        (both,) = yield from self.project(rows, MatrixProduct(f"{at}.gate_up", "gate_up"))
        gated = engine.gated_activation(both[:, :inner], both[:, inner:], self.spec.activation)
        return (yield from staged(engine.meter, "activation", gated))

    def _mlp(self, at: str, rows: Rows) -> Program[Any]:
        (up,) = yield from self.project(rows, MatrixProduct(f"{at}.up", "gate_up"))
        return (yield from staged(self.engine.meter, "activation", self.engine.activation(up, self.spec.activation)))
