"""A model on the plain engine: a prompt is run once and compressed by many policies."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from parties.decoding.cache import Cache, LayerCache, Rows
from parties.decoding.decoder import Decoder
from parties.decoding.program import Program, run
from parties.engines.plain import PlainEngine
from parties.errors import ModelError
from parties.heads.folding import head_of
from parties.metering.meter import StageMeter
from parties.models import load_spec, load_tokenizer, load_weights
from parties.models.folding import fold
from parties.policies.base import Policy
from parties.policies.full import Full

if TYPE_CHECKING:
    from parties.engines.base import Engine

Step = Callable[[int], Tensor]
"""Decodes a token through a cache; returns the logits of the next, [vocab]."""

_CHUNK = 512  # rows of attention computed at once


@dataclass(frozen=True)
class _Recorder(Policy):
    """Keeps every token, and records everything about the prompt that policies read."""

    name: ClassVar[str] = "recorder"
    keeps: ClassVar[str] = "every token"
    source: ClassVar[str] = "-"
    in_order: ClassVar[bool] = True

    normal: dict[int, list[Tensor]] = field(default_factory=dict)
    qkv: dict[int, list[Tensor]] = field(default_factory=dict)
    queries: list[Tensor] = field(default_factory=list)

    @property
    def chunk(self) -> int:
        """Chunk size; attention over the whole prompt at once needs too much memory for a small machine."""
        return _CHUNK

    def on_projection(self, engine: "Engine", cache: Cache, layer: int, normal: Any, qkv: Any) -> Program[None]:  # noqa: ARG002
        """Records a chunk."""
        self.normal.setdefault(layer, []).append(normal)
        self.qkv.setdefault(layer, []).append(qkv)
        return
        yield

    def after_prefill(self, engine: "Engine", cache: Cache, layer: int, q: Any) -> Program[None]:  # noqa: ARG002
        """Records the queries."""
        self.queries.append(q)
        return
        yield


@dataclass(frozen=True)
class Prefix:
    """A prompt that was run with the full cache, and the tensors that each layer computed for it.

    Attributes:
        tokens: The prompt.
        cache: The full cache.
        normal: Normalised input of each layer, [n, hidden].
        qkv: Queries, keys and values of each layer, concatenated, before positions.
        queries: Queries of each layer with position, [heads, n, head_dim].
    """

    tokens: tuple[int, ...]
    cache: Cache
    normal: tuple[Tensor, ...]
    qkv: tuple[Tensor, ...]
    queries: tuple[Tensor, ...]


class Reader:
    """A model, float32.

    Attributes:
        spec: The specification of the model.
        tokenizer: The tokenizer of the model.
    """

    def __init__(self, model: str, device: str = "cpu") -> None:
        """Loads the model.

        Args:
            model: A model source.
            device: `cpu` or `cuda`.

        Raises:
            ModelError: The model or the device does not exist, or the model cannot be read.
        """
        if device == "cuda" and not torch.cuda.is_available():
            raise ModelError("device: there is no CUDA device; write device: cpu")
        self.spec, self.tokenizer = load_spec(model), load_tokenizer(model)
        self._weights = load_weights(model)
        self._folded = fold(self.spec, self._weights)
        self._engine = PlainEngine(StageMeter(), torch.float32, device)
        self._installed: str | None = "nothing"

    def decoder(self, policy: Policy) -> Decoder:
        """The decoder of the model with a policy and the policy's trained heads.

        Raises:
            HeadError: The policy's heads cannot be used with this model.
        """
        wanted = f"{policy.trained} {getattr(policy, 'head', '')}" if policy.trained else None
        if wanted != self._installed:
            run(self._engine.install({}, self._folded | head_of(policy, self.spec, self._weights)))
            self._installed = wanted
        return Decoder(self._engine, self.spec, policy)

    @torch.no_grad()
    def read(self, tokens: Sequence[int]) -> Prefix:
        """Runs a prompt with the full cache, once for all policies."""
        recorder, cache = _Recorder(), Cache.empty(self.spec.n_layers)
        decoder = self.decoder(recorder)
        run(decoder.prefill(run(decoder.embed(tokens, len(tokens), 0)), cache))
        layers = range(self.spec.n_layers)
        return Prefix(
            tuple(tokens),
            cache,
            tuple(torch.cat(recorder.normal[layer]) for layer in layers),
            tuple(torch.cat(recorder.qkv[layer]) for layer in layers),
            tuple(recorder.queries),
        )

    @torch.no_grad()
    def compress(self, prefix: Prefix, policy: Policy) -> Cache:
        """The cache that a policy leaves after a prompt.

        A policy that evicts while the prompt runs changes the input of later layers, so the prompt is run again for it.
        All other policies use the tensors of the run with the full cache.
        """
        decoder, cache = self.decoder(policy), Cache.empty(self.spec.n_layers)
        if policy.chunk is not None:
            run(decoder.prefill(run(decoder.embed(prefix.tokens, len(prefix.tokens), 0)), cache))
            return cache
        engine, n = self._engine, len(prefix.tokens)
        for layer, here in enumerate(cache.layers):
            run(policy.on_projection(engine, cache, layer, prefix.normal[layer], prefix.qkv[layer]))
            here.append(engine, prefix.cache.layers[layer].k, prefix.cache.layers[layer].v)
            here.rows = (Rows(prefix.normal[layer], None),)  # policies read only their number
            here.queries = (prefix.queries[layer],)
            run(policy.after_chunk(engine, cache, layer, n))
            here.rows = here.queries = ()
            cache.position = cache.prompt = n
            run(policy.after_prefill(engine, cache, layer, prefix.queries[layer]))
        return cache

    @torch.no_grad()
    def reference(self, prefix: Prefix, tokens: Sequence[int]) -> Tensor:
        """Logits with the full cache after each of the tokens that follow a prompt, [n, vocab]."""
        held = [LayerCache(here.k, here.v) for here in prefix.cache.layers]
        cache = Cache(held, position=prefix.cache.position, prompt=prefix.cache.prompt)
        decoder = self.decoder(Full())
        logits: Tensor = run(decoder.follow(run(decoder.embed(tokens, len(tokens), cache.position)), cache))
        return self.spec.capped(logits.double())

    @torch.no_grad()
    def step(self, policy: Policy, cache: Cache, token: int) -> Tensor:
        """Decodes one token through a cache; returns the logits of the next, [vocab]."""
        decoder = self.decoder(policy)
        logits: Tensor = run(decoder.step(run(decoder.embed([token], 1, cache.position)), cache))
        return self.spec.capped(logits[0].double())
