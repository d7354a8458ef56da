# ruff: noqa: ARG002 - a hook that does nothing still has its arguments
"""The interface of a policy: a frozen dataclass of public parameters, a few hooks, and a description of itself."""

from abc import ABC
from collections.abc import Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch

from parties.decoding.program import Program

if TYPE_CHECKING:
    from parties.decoding.cache import Cache
    from parties.decoding.clusters import Selection
    from parties.engines.base import Engine
    from parties.models.spec import ModelSpec


LATER = {"since": "later"}
"""Metadata of a parameter that a policy did not have at first: at its default it is in no id, so that ids stay."""


@dataclass(frozen=True)
class Policy(ABC):
    """Decides which tokens the cache keeps and which a step attends to.

    Parameters are public, and so is every count that follows from them; nothing else about the cache is revealed
    unless `leaks` states it. Hooks are programs over the values of an engine, written once for all engines. A policy
    keeps its state of a layer in that layer's `state` (secret values by name), so that it can be shared and measured.

    In the texts on cost, n is the number of prompt tokens, T of cached tokens, B of kept tokens, W of steps between two
    evictions, H and G of query and key heads, and d the head dimension; costs are per layer.

    Attributes:
        name: Key in `POLICIES`; for a policy from elsewhere its import path, `module:Class`, which is set for it.
        keeps: Which tokens the cache keeps, and which a step attends to.
        prefill_cost: Comparisons, exponentials, products and moved rows at the end of the prompt.
        step_cost: The same per decoded token.
        leaks: What the parties learn about secrets.
        training: What has to be trained.
        trained: The kind of trained heads that rate tokens; the parameter `head` names their file. None if untrained.
        source: Paper, released code, and differences from them.
        draft_fix: What to do where it cannot verify drafts.
        experimental: Why its use is not recommended yet; empty if it is.
        in_order: Whether a layer always holds all tokens in order, so that a window of the latest ones is known.
        by_head: Whether the hooks of a step treat each head by itself, and each value in a layer's `state` has a row
            for each key head: sequences of a batch are then further heads. Not needed without hooks of a step.
    """

    name: ClassVar[str]
    keeps: ClassVar[str]
    prefill_cost: ClassVar[str] = "none"
    step_cost: ClassVar[str] = "none"
    leaks: ClassVar[str] = "nothing beyond the public sequence length and the policy's parameters"
    training: ClassVar[str] = "none"
    trained: ClassVar[Literal["locret", "attention_gate"] | None] = None
    source: ClassVar[str] = "not stated"
    draft_fix: ClassVar[str] = "take another policy, or no draft"
    experimental: ClassVar[str] = ""
    in_order: ClassVar[bool] = False
    by_head: ClassVar[bool] = False

    def __init_subclass__(cls, **options: Any) -> None:
        """Names a policy from outside this package by its import path."""
        super().__init_subclass__(**options)
        if "name" not in cls.__dict__:
            cls.name = f"{cls.__module__}:{cls.__qualname__}"

    # -- hooks, in the order in which they are called ------------------------------------------------------------------

    def on_projection(self, engine: "Engine", cache: "Cache", layer: int, normal: Any, qkv: Any) -> Program[None]:
        """Called for a chunk of the prompt before its keys and values join the layer.

        It adds to the layer's `state` only: the chunk attends to what it would attend to without the call.

        Args:
            engine: The engine that holds the values.
            cache: The cache.
            layer: Index of the layer.
            normal: The layer's normalised input, [tokens, hidden], without the norm's gain.
            qkv: Queries, keys and values, concatenated, [tokens, (heads + 2 kv_heads) head_dim], before positions; the
                queries are scaled by 1/sqrt(head_dim).
        """
        return
        yield

    def after_chunk(self, engine: "Engine", cache: "Cache", layer: int, position: int) -> Program[None]:
        """Called for a layer after a chunk of the prompt has attended; `position` prompt tokens have passed it."""
        return
        yield

    def after_prefill(self, engine: "Engine", cache: "Cache", layer: int, q: Any) -> Program[None]:
        """Compresses a layer once it holds the whole prompt.

        Args:
            engine: The engine that holds the values.
            cache: The cache; `cache.layers[layer]` holds all n prompt tokens.
            layer: Index of the layer; earlier layers are already compressed.
            q: Queries of the prompt, [heads, n, head_dim], with position, scaled by 1/sqrt(head_dim).
        """
        return
        yield

    def before_attention(self, engine: "Engine", cache: "Cache", layer: int, q: Any) -> "Program[Selection | None]":
        """Selects what this step attends to, after the new token's key and value have joined the layer.

        Args:
            engine: The engine that holds the values.
            cache: The cache, including the new token.
            layer: Index of the layer.
            q: The step's query, [heads, 1, head_dim], with position, scaled by 1/sqrt(head_dim).

        Returns:
            The selected clusters, or None to attend to all cached tokens.
        """
        return None
        yield

    def needs_query(self, layer: int) -> bool:
        """Whether a step needs the layer's query, or its attention weights. Public.

        If not, `before_attention` is not called: the step attends to `known_selection`.
        """
        return self.observes or type(self).before_attention is not Policy.before_attention

    def known_selection(self, cache: "Cache", layer: int) -> "Selection | None":
        """What a step that needs no query attends to, before the new token's key and value have joined the layer."""
        return None

    def selects_ahead(self, layer: int) -> bool:
        """Whether a layer's selection is made ahead of it, by `select_ahead`. Public; never true of the first layer."""
        return False

    def select_ahead(self, engine: "Engine", cache: "Cache", layer: int, q: Any) -> Program[None]:
        """Selects what a layer will attend to at this step, while the layer before it runs, whose rounds it shares.

        The new token's key and value have not joined the layer yet.

        Args:
            engine: The engine that holds the values.
            cache: The cache; the result goes to `cache.layers[layer].selection`, which `before_attention` returns.
            layer: Index of the layer that is selected for.
            q: The layer's query, [heads, 1, head_dim], as in `before_attention`, but guessed: this layer's projection
                of the normalised input of the layer before.
        """
        return
        yield

    def after_attention(self, engine: "Engine", cache: "Cache", layer: int, weights: Any) -> Program[None]:
        """Updates the state after a step, or evicts; runs in parallel with the rest of the layer and shares its rounds.

        Args:
            engine: The engine that holds the values.
            cache: The cache, including the new token.
            layer: Index of the layer.
            weights: Attention weights, [heads, 1, tokens and the layer's room], if the policy `observes`; else None.
        """
        return
        yield

    def begin_tokens(self, count: int) -> dict[str, torch.Tensor]:
        """The state per token of the next `count` tokens while tokens are decoded, by name: public numbers, [count].

        The columns of such a state, [groups, tokens, ...], are made some steps ahead (`LayerCache.room`), so that its
        shape lasts; the step of a token changes them as it changes those of the tokens before.
        """
        return {}

    def step_name(self, cache: "Cache", layer: int) -> Hashable | None:
        """A name for what a step does in a layer: steps of a layer with the same name do the same on equal shapes.

        None if it depends on more, such as the position. By default all steps of a policy that does nothing while
        tokens are decoded have the same name.
        """
        return () if self._idle else None

    def layer_kind(self, layer: int, n_layers: int) -> Hashable | None:
        """What a step depends on besides its name: in layers of the same kind, steps of the same name do the same.

        None if no other layer is like this one. By default all layers are alike if the policy does nothing while tokens
        are decoded, and none are if it does.
        """
        return () if self._idle else None

    def chunk_kind(self, layer: int) -> Hashable | None:
        """As `layer_kind`, for a chunk of the prompt: by default all layers are alike without hooks for chunks."""
        hooks = (type(self).on_projection, type(self).after_chunk)
        return () if hooks == (Policy.on_projection, Policy.after_chunk) else None

    @property
    def _idle(self) -> bool:
        """Whether the policy does nothing while tokens are decoded."""
        hooks = (type(self).before_attention, type(self).after_attention)
        return hooks == (Policy.before_attention, Policy.after_attention) and not self.observes

    @property
    def folds(self) -> bool:
        """Whether sequences of a batch may be decoded as further heads of one; see `by_head`."""
        return self.by_head or self._idle

    def pass_key(self, tokens: int, generated: int) -> Hashable | None:
        """What steps have in common that one pass can verify; see `parties.decoding.verification`.

        A pass selects for all of its tokens as for its first one, and calls `after_attention` for the accepted ones
        afterwards, in order. So that they are decoded as one by one, steps of the same key must select from the same
        candidates, except for tokens of the pass itself, which they always attend to; and of these steps only the last
        may change what its successors attend to. By default all steps of a policy without these hooks are alike.

        Args:
            tokens: Number of tokens that the layer holds in the step, its own included. Public.
            generated: Number of the step, from 1. Public.

        Returns:
            The key; None if no two steps can share a pass.
        """
        hooks = (type(self).before_attention, type(self).after_attention)
        return () if hooks == (Policy.before_attention, Policy.after_attention) else None

    def pass_name(self, cache: "Cache", layer: int) -> Hashable:
        """As `step_name`, for a pass: policies that do not select do the same in each."""
        here, generated = cache.layers[layer], cache.position - cache.prompt + 1
        selects = type(self).before_attention is not Policy.before_attention
        key = self.pass_key(here.tokens + 1, generated) if selects else None
        return ("pass", here.alive is None, key)

    @property
    def observes(self) -> bool:
        """Whether `after_attention` needs the attention weights: a step then divides each of them by their sum."""
        return False

    @property
    def chunk(self) -> int | None:
        """Number of prompt tokens per chunk, if the policy's result depends on it; else None.

        With None all of the prompt attends to all of it before anything is evicted, and the referee computes this
        attention once for all such policies.
        """
        return None

    def window_problem(self, spec: "ModelSpec", tokens: int) -> str:
        """Why the windows of a model cannot be applied to this cache in a sequence of `tokens`; empty if they can.

        A window of the latest tokens is public. After an eviction, which cached tokens are inside of it is not.
        """
        passed = [window for window in spec.windows if 0 < window < tokens]
        if self.in_order or not passed:
            return ""
        return (
            f"layers of the model attend to the latest {min(passed)} tokens, and policy {self.name} does not keep all "
            f"tokens in order, as a longer sequence, of {tokens}, needs"
        )

    # -- public counts -------------------------------------------------------------------------------------------------

    def cached(self, prompt: int) -> int:
        """Number of `prompt` prefilled tokens that the cache keeps; the mean if layers differ. Public."""
        return prompt

    def held(self, prompt: int, generated: int) -> int:
        """Number of tokens that a layer holds while the `generated`-th token is decoded, including it. Public."""
        return self.cached(prompt) + generated

    def selecting_heads(self, spec: "ModelSpec") -> int:
        """Number of selections in a layer that selects. Public."""
        return spec.n_heads

    def attended(self, tokens: int) -> int:
        """Number of `tokens` cached tokens that a step attends to. Public."""
        return tokens

    def selected(self, tokens: int) -> int:
        """Number of those that are selected in secret, by query head. Public."""
        return 0


def kept_share(tokens: int, compression_ratio: float) -> int:
    """Returns how many of `tokens` are kept if a share is removed, at least one; kvpress' convention."""
    return max(1, int(tokens * (1 - compression_ratio)))
