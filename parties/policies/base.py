# ruff: noqa: ARG002 - a hook that does nothing still has its arguments
"""What a policy is: a frozen dataclass of public parameters and two hooks."""

from abc import ABC
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from parties.program import Program

if TYPE_CHECKING:
    from parties.cache import Cache
    from parties.engines.base import Engine
    from parties.selection import Selection


@dataclass(frozen=True)
class Policy(ABC):
    """Decides what the cache keeps and what a step attends to.

    Parameters are public, and so is every count that follows from them; nothing else about the cache is revealed
    unless `leaks` says so. Hooks are programs over the values of an engine, written once for all engines. What a
    policy remembers about a layer lives in that layer's `state` (secret values by name), so that it can be shared and
    measured.
    """

    name: ClassVar[str]
    leaks: ClassVar[str] = "nothing beyond the public sequence length and the policy's parameters"

    def after_prefill(self, engine: "Engine", cache: "Cache", layer: int, q: Any) -> Program[None]:
        """Compresses a layer once the whole prompt is in it.

        Args:
            engine: the engine that holds the values.
            cache: the cache; `cache.layers[layer]` holds all n prompt tokens.
            layer: index of the layer; earlier layers are already compressed.
            q: queries of the prompt, [heads, n, head_dim], with position, scaled by 1/sqrt(head_dim).
        """
        return
        yield

    def before_attention(self, engine: "Engine", cache: "Cache", layer: int, q: Any) -> "Program[Selection | None]":
        """Says what this step attends to, after the new token's key and value joined the layer.

        Args:
            engine: the engine that holds the values.
            cache: the cache, the new token included.
            layer: index of the layer.
            q: the step's query, [heads, 1, head_dim], with position, scaled by 1/sqrt(head_dim).

        Returns:
            The selected clusters, or None to attend to all cached tokens.
        """
        return None
        yield

    def cached(self, prompt: int) -> int:
        """How many of `prompt` prefilled tokens stay in the cache. Public."""
        return prompt

    def attended(self, tokens: int) -> int:
        """How many of `tokens` cached tokens one step attends to. Public."""
        return tokens
