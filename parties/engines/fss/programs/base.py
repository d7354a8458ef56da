"""What all families of programs work with."""

from collections.abc import Mapping

from torch import Tensor

from parties.decoding.program import Program
from parties.engines.base import Engine, Shapes
from parties.engines.bounds import Bound
from parties.engines.fss import bounds
from parties.engines.fss.arithmetic import gates, ring
from parties.engines.fss.arithmetic.inputs import private_input
from parties.engines.fss.arithmetic.matrices import ServerMatrix, is_matrix
from parties.engines.fss.arithmetic.values import Additive, Masked
from parties.engines.fss.randomness.source import Source
from parties.errors import Unsupported
from parties.options import RunOptions


class Programs(Engine):
    """A party's randomness, the declared bounds, and the installed model.

    Each family of programs derives from this class, and calls other families by their names in `Engine` alone.

    Args:
        source: This party's correlated randomness.

    Attributes:
        source: As given.
        matrices: The server's matrices by name, as this party has them.
        parameters: Positions and gains by name, opened under masks that stay.
        biases: Shares of the biases by name.
    """

    def __init__(self, source: Source) -> None:
        super().__init__(source.meter)
        self.source = source
        self.matrices: dict[str, ServerMatrix] = {}
        self.parameters: dict[str, Masked] = {}
        self.biases: dict[str, Additive] = {}

    @classmethod
    def declared(cls, options: RunOptions) -> Mapping[str, Bound]:
        """The engine's bounds, or the model's where it has its own.

        Raises:
            Unsupported: The engine does not take such a bound.
        """
        try:
            return bounds.declared(options.bounds)
        except bounds.BoundRefused as error:
            raise Unsupported(f"engine {cls.name}: bounds: {error}") from None

    def configure(self, options: RunOptions) -> None:
        """Takes over a cell's options; the same at all three parties, before its first program."""
        self.source.comparison, self.source.softmax = options.comparison, options.softmax
        self.source.bounds = self.declared(options)

    def _limit(self, number: str) -> float:
        return self.source.bounds[number].limit

    def install(self, shapes: Shapes, weights: Mapping[str, Tensor] | None) -> Program[None]:
        """Takes the biases, which the server adds on its side, and opens positions and gains under a fixed mask."""
        for name, shape in shapes.items():
            if is_matrix(name, shape):
                continue
            integers = None if weights is None else ring.encode(weights[name])
            if name.endswith(".bias"):
                self.biases[name] = private_input(
                    self.source, shape, integers, ring.FRACTION_BITS, bounds.PARAMETER_LIMIT
                )
            else:
                self.parameters[name] = yield from gates.open_(
                    private_input(self.source, shape, integers, ring.FRACTION_BITS, bounds.PARAMETER_LIMIT)
                )

    def installed(self) -> dict[str, list[Tensor]]:
        """The tensors of the installed model, by name."""
        found = {name: [matrix.transposed] for name, matrix in self.matrices.items()}
        found |= {name: [value.public, value.mask] for name, value in self.parameters.items()}
        return found | {name: [value.share] for name, value in self.biases.items()}

    def parameter(self, name: str) -> Masked:
        """An installed parameter."""
        return self.parameters[name]
