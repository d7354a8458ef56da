"""What client and dealer agree on before a cell: public numbers, from which all programs of the cell follow."""

from dataclasses import asdict, dataclass
from typing import Any, Self

import torch

from parties.cache import Cache
from parties.decoder import Decoder
from parties.engines.fss.engine import Computation
from parties.models.spec import ModelSpec
from parties.policies import make

ATTEMPT_BITS = 32


@dataclass(frozen=True)
class Plan:
    """A cell: a model, a policy, the shapes of a prefilled cache, and how many tokens to decode.

    Attributes:
        argmax: `private`, or `client` if the logits are opened to the client.
        first: index of the cell's first epoch, in which the cache is masked; token i has the index first + 1 + i.
    """

    spec: dict[str, Any]
    policy: str
    parameters: dict[str, Any]
    shapes: dict[str, list[int]]
    position: int
    steps: int
    argmax: str
    first: int

    @classmethod
    def of(cls, decoder: Decoder, cache: Cache, steps: int, argmax: str, first: int) -> Self:
        """The plan of a decoder with a prefilled cache."""
        shapes = {name: list(value.shape) for name, value in cache.values().items()}
        policy = decoder.policy
        return cls(decoder.spec.to_json(), policy.name, asdict(policy), shapes, cache.position, steps, argmax, first)

    def decoder(self, engine: Computation) -> Decoder:
        """The same decoder on another party's side."""
        return Decoder(engine, ModelSpec.from_json(self.spec), make(self.policy, **self.parameters))

    def cache(self, engine: Computation) -> Cache:
        """The dealer's stand-in for the prefilled cache."""
        empty = {n: torch.empty(s, dtype=torch.int64, device="meta") for n, s in self.shapes.items()}
        named = {name: engine.adopt(share) for name, share in empty.items()}
        return Cache.from_values(ModelSpec.from_json(self.spec).n_layers, self.position, named)


def epoch(attempt: int, index: int) -> int:
    """The number of an epoch: later attempts come after all earlier ones."""
    return attempt << ATTEMPT_BITS | index
