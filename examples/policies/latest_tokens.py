"""A cache policy that is not part of mpcache-bench: name it `latest_tokens:LatestTokens` in an experiment."""

from dataclasses import dataclass
from typing import Any, ClassVar

from parties.decoding.cache import Cache
from parties.decoding.program import Program
from parties.engines.base import Engine
from parties.policies.base import Policy, kept_share
from parties.policies.checks import share


@dataclass(frozen=True)
class LatestTokens(Policy):
    """Keeps the last tokens of the prompt, by position alone, and all that is generated.

    Attributes:
        compression_ratio: Share of the prompt's tokens that is removed, in [0, 1).
    """

    keeps: ClassVar[str] = "the last tokens of the prompt, and all that is generated"
    leaks: ClassVar[str] = "nothing beyond the public sequence length and the policy's parameters"
    source: ClassVar[str] = "an example"

    compression_ratio: float = 0.5

    def __post_init__(self) -> None:
        """Checks the range.

        Raises:
            OutOfRange: The ratio is not in [0, 1).
        """
        share("compression_ratio", self.compression_ratio, one=False)

    def after_prefill(self, engine: Engine, cache: Cache, layer: int, q: Any) -> Program[None]:  # noqa: ARG002
        """Drops a public part of the rows, which needs no communication."""
        here = cache.layers[layer]
        kept = self.cached(here.tokens)
        here.k, here.v = here.k[:, -kept:], here.v[:, -kept:]
        return
        yield

    def cached(self, prompt: int) -> int:
        """The share that stays, at least one token."""
        return kept_share(prompt, self.compression_ratio)
