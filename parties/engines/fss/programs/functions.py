"""Functions of numbers and rows: norms, activations, softmax, comparisons."""

from torch import Tensor

from parties.decoding.program import Program
from parties.engines.fss.arithmetic import gates
from parties.engines.fss.arithmetic.values import Masked
from parties.engines.fss.compare.signs import negative
from parties.engines.fss.functions import softmax
from parties.engines.fss.functions.activation import activation, gated_activation, soft_cap
from parties.engines.fss.functions.norm import NormInput, inverse_root, normalise, residual, to_norm
from parties.engines.fss.programs.base import Programs
from parties.engines.fss.randomness.constants import Known
from parties.engines.fss.topk import maximum


class Functions(Programs):
    """Each is a program of `parties.engines.fss.functions`, or of `compare` and `topk`, with the engine's bounds."""

    def residual(self, x: Masked) -> Masked:
        """Rows with the bound that rows of all layers have; see `norm.residual`."""
        return residual(x)

    def to_norm(self, x: Masked, *, centre: bool) -> NormInput:
        """Rows less their mean if `centre`, and a narrower copy for their squares; see `norm.to_norm`."""
        return to_norm(x, centre=centre)

    def normalise(self, rows: NormInput, eps: float) -> Program[Masked]:
        """RMS norm. 3 rounds for a few rows with `dcf`, else 4."""
        return normalise(rows, eps)

    def activation(self, x: Masked, kind: str) -> Program[Masked]:
        """SiLU or GELU. 2 rounds."""
        return activation(x, kind)

    def gated_activation(self, gate: Masked, x: Masked, kind: str) -> Program[Masked]:
        """SiLU or GELU, times a number. 2 rounds."""
        return gated_activation(gate, x, kind)

    def soft_cap(self, x: Masked, cap: float) -> Program[Masked]:
        """Tanh over a declared range. 2 rounds."""
        return soft_cap(x, cap)

    def softmax(self, scores: Masked, mask: Tensor | Known | None = None) -> Program[Masked]:
        """Softmax over the last axis. 7 rounds and those of `count_below` for few queries (6 by `dpf`), 8 for many."""
        weights = yield from softmax.exponentials(scores, mask)
        return (yield from softmax.divide(weights, (yield from softmax.inverse_sums(weights)), 1.5))

    def maximum(self, x: Masked, y: Masked) -> Program[Masked]:
        """Elementwise maximum. 2 rounds."""
        return maximum.elementwise_maximum(gates.truncate(x), gates.truncate(y))

    def negative(self, x: Masked) -> Program[Masked]:
        """Signs, opened under a mask as integers. 2 rounds."""
        bits = yield from gates.xor_bits(self.source, (yield from negative(gates.truncate(x))))
        return (yield from gates.open_(gates.arithmetic(self.source, bits)))

    def inverse_root(self, x: Masked) -> Program[Masked]:
        """1 / sqrt(x). 1 round for a few numbers with `dcf`, else 2."""
        return inverse_root(x)
