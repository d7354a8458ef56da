# ruff: noqa: ARG002 - a hook that does nothing still has its arguments
"""What a policy is: a frozen dataclass of public parameters, a few hooks, and what it has to say of itself."""

from abc import ABC
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from parties.decoding.program import Program

if TYPE_CHECKING:
    from parties.decoding.cache import Cache
    from parties.decoding.clusters import Selection
    from parties.engines.base import Engine


@dataclass(frozen=True)
class Policy(ABC):
    """Decides what the cache keeps and what a step attends to.

    Parameters are public, and so is every count that follows from them; nothing else about the cache is revealed
    unless `leaks` says so. Hooks are programs over the values of an engine, written once for all engines. What a
    policy remembers about a layer lives in that layer's `state` (secret values by name), so that it can be shared and
    measured.

    In the texts on cost n is the prompt's tokens, T those cached, B those kept, W the steps between two evictions, H
    and G the query and the key heads, d the head's width; all of them are counts for one layer.

    Attributes:
        name: key in `POLICIES`; of a policy from elsewhere its import path, `module:Class`, which it need not write.
        keeps: what stays in the cache, and what a step attends to.
        prefill_cost: comparisons, exponentials, products and moved rows at the end of the prompt.
        step_cost: the same for each decoded token.
        leaks: what the parties learn of secrets.
        training: what it has to be trained with.
        trained: the kind of heads that it rates tokens with, whose file its parameter `head` names; None without.
        source: paper, released code, and where we follow which.
        experimental: why its use is not recommended yet; empty if it is.
    """

    name: ClassVar[str]
    keeps: ClassVar[str]
    prefill_cost: ClassVar[str] = "none"
    step_cost: ClassVar[str] = "none"
    leaks: ClassVar[str] = "nothing beyond the public sequence length and the policy's parameters"
    training: ClassVar[str] = "none"
    trained: ClassVar[Literal["locret", "attention_gate"] | None] = None
    source: ClassVar[str] = "not stated"
    experimental: ClassVar[str] = ""

    def __init_subclass__(cls, **options: Any) -> None:
        """Names a policy from outside this package by its import path."""
        super().__init_subclass__(**options)
        if "name" not in cls.__dict__:
            cls.name = f"{cls.__module__}:{cls.__qualname__}"

    # -- hooks, in the order in which they are called ------------------------------------------------------------------

    def on_projection(self, engine: "Engine", cache: "Cache", layer: int, normal: Any, qkv: Any) -> Program[None]:
        """Sees a chunk of the prompt before its keys and values join the layer.

        Args:
            engine: the engine that holds the values.
            cache: the cache.
            layer: index of the layer.
            normal: the layer's normalised input, [tokens, hidden], without the norm's gain.
            qkv: queries, keys and values side by side, [tokens, (heads + 2 kv_heads) head_dim], before positions; the
                queries are scaled by 1/sqrt(head_dim).
        """
        return
        yield

    def after_chunk(self, engine: "Engine", cache: "Cache", layer: int, position: int) -> Program[None]:
        """Sees a layer after a chunk of the prompt has attended; `position` of its tokens have been through it."""
        return
        yield

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

    def after_attention(self, engine: "Engine", cache: "Cache", layer: int, weights: Any) -> Program[None]:
        """Remembers a step, or evicts after it; runs beside the rest of the layer, whose rounds it shares.

        Args:
            engine: the engine that holds the values.
            cache: the cache, the new token included.
            layer: index of the layer.
            weights: attention weights, [heads, 1, tokens], if the policy `observes`; else None.
        """
        return
        yield

    @property
    def observes(self) -> bool:
        """Whether `after_attention` needs the weights: a step then divides by their sum for each token."""
        return False

    @property
    def chunk(self) -> int | None:
        """Tokens of the prompt that go through a layer at once, if the policy's result depends on it."""
        return None

    # -- public counts -------------------------------------------------------------------------------------------------

    def cached(self, prompt: int) -> int:
        """How many of `prompt` prefilled tokens stay in the cache; where layers differ, their mean. Public."""
        return prompt

    def held(self, prompt: int, generated: int) -> int:
        """How many tokens a layer holds while it decodes its `generated`-th token, that one included. Public."""
        return self.cached(prompt) + generated

    def attended(self, tokens: int) -> int:
        """How many of `tokens` cached tokens one step attends to. Public."""
        return tokens


def kept_share(tokens: int, compression_ratio: float) -> int:
    """How many of `tokens` stay when a share is removed, at least one: kvpress' convention."""
    return max(1, int(tokens * (1 - compression_ratio)))
