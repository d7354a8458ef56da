"""A model on the plain engine that reads a prompt once and compresses it by many policies."""

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
"""Decodes a token through a cache: logits of the next, [vocab]."""

_CHUNK = 512  # rows of attention that are computed at once


@dataclass(frozen=True)
class _Watch(Policy):
    """Keeps everything, and what every policy may want to see of the prompt."""

    name: ClassVar[str] = "watch"
    keeps: ClassVar[str] = "every token"
    source: ClassVar[str] = "-"

    normal: dict[int, list[Tensor]] = field(default_factory=dict)
    qkv: dict[int, list[Tensor]] = field(default_factory=dict)
    queries: list[Tensor] = field(default_factory=list)

    @property
    def chunk(self) -> int:
        """Attention of the whole prompt at once would not fit a small machine."""
        return _CHUNK

    def on_projection(self, engine: "Engine", cache: Cache, layer: int, normal: Any, qkv: Any) -> Program[None]:  # noqa: ARG002
        """Notes a chunk."""
        self.normal.setdefault(layer, []).append(normal)
        self.qkv.setdefault(layer, []).append(qkv)
        return
        yield

    def after_prefill(self, engine: "Engine", cache: Cache, layer: int, q: Any) -> Program[None]:  # noqa: ARG002
        """Notes the queries."""
        self.queries.append(q)
        return
        yield


@dataclass(frozen=True)
class Prefix:
    """A prompt that was read with the full cache, and what each layer computed for it.

    Attributes:
        tokens: the prompt.
        cache: the full cache.
        normal: of each layer, the normalised input, [n, hidden].
        qkv: of each layer, queries, keys and values side by side before positions.
        queries: of each layer, queries with position, [heads, n, head_dim].
    """

    tokens: tuple[int, ...]
    cache: Cache
    normal: tuple[Tensor, ...]
    qkv: tuple[Tensor, ...]
    queries: tuple[Tensor, ...]


class Reader:
    """One model, float32.

    Attributes:
        spec: the model's facts.
        tokenizer: its tokenizer.
    """

    def __init__(self, model: str, device: str = "cpu") -> None:
        """Loads the model.

        Args:
            model: a model source.
            device: `cpu` or `cuda`.

        Raises:
            ModelError: there is no such model, or it cannot be read; or no such device.
        """
        if device == "cuda" and not torch.cuda.is_available():
            raise ModelError("device: there is no CUDA device; write device: cpu")
        self.spec, self.tokenizer = load_spec(model), load_tokenizer(model)
        self._weights = load_weights(model)
        self._folded = fold(self.spec, self._weights)
        self._engine = PlainEngine(StageMeter(), torch.float32, device)
        self._installed: str | None = "nothing"

    def decoder(self, policy: Policy) -> Decoder:
        """The model with a policy, and with the heads that it was trained for.

        Raises:
            HeadError: the policy's heads cannot be used with this model.
        """
        wanted = f"{policy.trained} {getattr(policy, 'head', '')}" if policy.trained else None
        if wanted != self._installed:
            run(self._engine.install({}, self._folded | head_of(policy, self.spec, self._weights)))
            self._installed = wanted
        return Decoder(self._engine, self.spec, policy)

    @torch.no_grad()
    def read(self, tokens: Sequence[int]) -> Prefix:
        """Runs a prompt with the full cache, once for all policies."""
        watch, cache = _Watch(), Cache.empty(self.spec.n_layers)
        decoder = self.decoder(watch)
        run(decoder.prefill(run(decoder.embed(tokens, len(tokens), 0)), cache))
        layers = range(self.spec.n_layers)
        return Prefix(
            tuple(tokens),
            cache,
            tuple(torch.cat(watch.normal[layer]) for layer in layers),
            tuple(torch.cat(watch.qkv[layer]) for layer in layers),
            tuple(watch.queries),
        )

    @torch.no_grad()
    def compress(self, prefix: Prefix, policy: Policy) -> Cache:
        """The cache that a policy makes of a prompt.

        A policy that evicts while the prompt is being read changes what later layers see, so it reads for itself; all
        others see what the full cache saw.
        """
        decoder, cache = self.decoder(policy), Cache.empty(self.spec.n_layers)
        if policy.chunk is not None:
            run(decoder.prefill(run(decoder.embed(prefix.tokens, len(prefix.tokens), 0)), cache))
            return cache
        engine, n = self._engine, len(prefix.tokens)
        for layer, here in enumerate(cache.layers):
            run(policy.on_projection(engine, cache, layer, prefix.normal[layer], prefix.qkv[layer]))
            here.append(engine, prefix.cache.layers[layer].k, prefix.cache.layers[layer].v)
            here.rows = (Rows(prefix.normal[layer], None),)  # a policy counts the prompt's rows, and looks at none
            here.queries = (prefix.queries[layer],)
            run(policy.after_chunk(engine, cache, layer, n))
            here.rows = here.queries = ()
            cache.position = cache.prompt = n
            run(policy.after_prefill(engine, cache, layer, prefix.queries[layer]))
        return cache

    @torch.no_grad()
    def reference(self, prefix: Prefix, tokens: Sequence[int]) -> Tensor:
        """Logits of the full cache after each of some tokens that follow a prompt, [n, vocab]."""
        held = [LayerCache(here.k, here.v) for here in prefix.cache.layers]
        cache = Cache(held, position=prefix.cache.position, prompt=prefix.cache.prompt)
        decoder = self.decoder(Full())
        return run(decoder.follow(run(decoder.embed(tokens, len(tokens), cache.position)), cache)).double()  # type: ignore[no-any-return]

    @torch.no_grad()
    def step(self, policy: Policy, cache: Cache, token: int) -> Tensor:
        """Decodes one token through a cache: logits of the next, [vocab]."""
        decoder = self.decoder(policy)
        return run(decoder.step(run(decoder.embed([token], 1, cache.position)), cache))[0].double()  # type: ignore[no-any-return]
