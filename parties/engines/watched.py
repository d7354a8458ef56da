"""The `plain` engine under a `Watch`, which sees every number that has a declared range in some private engine.

The keys of the numbers, as in an engine's table of bounds, are quoted in the docstrings of `WatchedEngine`.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from parties.decoding.cache import LayerCache
from parties.decoding.program import Program
from parties.engines.bounds import Watch
from parties.engines.limits import FEW_ROWS
from parties.engines.operations import MatrixProduct
from parties.engines.plain import PlainEngine, Selected
from parties.metering.meter import StageMeter

OF_SCORES = {"score", "peak", "depth", "masked row"}


class WatchedEngine(PlainEngine):
    """Computes what `PlainEngine` does and passes its numbers to a watch.

    Attributes:
        watch: The watch; without bounds it ignores all numbers.
    """

    fused = torch.float32  # a third of the time; it rounds far below what an engine on shares does

    def __init__(self, meter: StageMeter, dtype: torch.dtype = torch.float64, device: str = "cpu") -> None:
        super().__init__(meter, dtype, device)
        self.watch = Watch({})
        self._layer: int | None = None
        self._blind = False
        self._rows: list[tuple[str, Tensor]] = []  # of the latest norms; the name of the next matrix gives their layer

    def _see(self, key: str, values: Tensor, limit: float | None = None) -> None:
        if not self._blind or key == "capped":
            self.watch.see(key, values, self._layer, limit)

    def linear(self, x: Tensor, name: str, columns: int | None = None) -> Program[Tensor]:
        """The matrix's name, and the keys of the norm before: `layers.<layer>.<matrix>` gives their layer.

        Some columns alone are a guess for a later layer: they belong to the layer that guesses.
        """
        *place, matrix = name.split(".")
        if columns is None:
            self._layer = int(place[1]) if place else None
        for key, values in self._rows:
            self._see(key, values)
        self._rows = []
        y = yield from super().linear(x, name, columns)
        self._see(matrix, y)
        return y

    def to_norm(self, x: Tensor, *, centre: bool) -> Tensor:
        """`mean` of each row, if it is subtracted."""
        if "mean" in self.watch.bounds and centre:
            self._rows.append(("mean", x.mean(-1, keepdim=True)))
        return super().to_norm(x, centre=centre)

    def normalise(self, rows: Tensor, eps: float) -> Program[Tensor]:
        """`mean square` of each row."""
        if "mean square" in self.watch.bounds:
            self._rows.append(("mean square", rows.square().mean(-1)))
        return (yield from super().normalise(rows, eps))

    def normalised_linear(self, rows: Tensor, eps: float, *products: MatrixProduct) -> Program[list[Tensor]]:
        """`unscaled`, `first unscaled` (first layer): products of few rows before they are divided in their norm."""
        results: list[Tensor] = yield from super().normalised_linear(rows, eps, *products)
        if "unscaled" in self.watch.bounds and len(rows) <= FEW_ROWS:
            for y in results:
                unscaled = y * (rows.square().mean(-1, keepdim=True) + eps).sqrt()
                self._see("unscaled" if self._layer else "first unscaled", unscaled)
        return results

    def activation(self, x: Tensor, kind: str) -> Program[Tensor]:
        """`activation`: its input."""
        self._see("activation", x)
        return (yield from super().activation(x, kind))

    def mul(self, x: Tensor, y: Tensor) -> Program[Tensor]:
        """`product`."""
        z = yield from super().mul(x, y)
        self._see("product", z)
        return z

    def matmul(self, x: Tensor, y: Tensor) -> Program[Tensor]:
        """`product`."""
        z = yield from super().matmul(x, y)
        self._see("product", z)
        return z

    def scores(self, q: Tensor, k: Tensor) -> Program[Tensor]:
        """Nothing here: scores are seen by `softmax`."""
        return self._unseen(super().scores(q, k))

    def weigh(self, weights: Tensor, v: Tensor) -> Program[Tensor]:
        """`mixed`."""
        mixed: Tensor = yield from self._unseen(super().weigh(weights, v))
        self._see("mixed", mixed)
        return mixed

    def _fuses(self, layer: LayerCache) -> bool:
        """Not where scores or weighted sums are seen."""
        return not (OF_SCORES | {"mixed"}) & self.watch.bounds.keys() and super()._fuses(layer)

    def _alive_scores(self, q: Tensor, layer: LayerCache) -> Program[Tensor]:
        """Nothing here: the engine's `masked_score` is not a number of the model."""
        return self._unseen(super()._alive_scores(q, layer))

    def _unseen(self, program: Program[Any]) -> Program[Any]:
        """Runs a program without the watch; no other program runs meanwhile, since `plain` opens nothing."""
        blind, self._blind = self._blind, True
        try:
            return (yield from program)
        finally:
            self._blind = blind

    def soft_cap(self, x: Tensor, cap: float) -> Program[Tensor]:
        """`capped`: its input, also where other numbers are not seen."""
        self._see("capped", x)
        return (yield from super().soft_cap(x, cap))

    def softmax(self, scores: Tensor, mask: Tensor | None = None) -> Program[Tensor]:
        """`score`, `peak` (log sum exp of a row), `depth` (below the row's largest), `masked row` (its largest)."""
        if OF_SCORES & self.watch.bounds.keys():
            self._see_scores(scores, mask)
        return (yield from super().softmax(scores, mask))

    def _see_scores(self, scores: Tensor, mask: Tensor | None) -> None:
        counts = scores > self.masked_score / 2
        if mask is not None:
            counts = counts & mask.to(scores.device)
        rows = scores.masked_fill(~counts, -torch.inf)
        largest = rows.amax(-1, keepdim=True)
        self._see("score", scores[counts])
        self._see("peak", rows.logsumexp(-1))
        self._see("depth", (rows - largest)[counts])
        if not bool(counts.all()):
            self._see("masked row", largest)

    def inverse_root(self, x: Tensor) -> Program[Tensor]:
        """`square root`: its input."""
        self._see("square root", x)
        return (yield from super().inverse_root(x))

    def bounded(self, value: Tensor, limit: float) -> Tensor:
        """`declared`: a number that a policy compares, with the policy's bound."""
        self._see("declared", value, limit)
        return value

    def top_clusters(
        self,
        coarse: Tensor,
        fine: Tensor,
        parents: Sequence[int | None],
        k_coarse: int,
        k_fine: int,
        *,
        fraction_bits: int = 16,  # noqa: ARG002 - exact
        spare_rounds: bool = False,  # noqa: ARG002 - exact
    ) -> Program[Selected]:
        """`similarity`."""
        for similarities in (coarse, fine):
            self._see("similarity", similarities)
        return (yield from super().top_clusters(coarse, fine, parents, k_coarse, k_fine))

    def argmax(self, logits: Tensor) -> Program[list[int]]:
        """`compared logit`."""
        self._layer = None
        self._see("compared logit", logits)
        return (yield from super().argmax(logits))
