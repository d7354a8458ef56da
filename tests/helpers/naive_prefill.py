"""The prompt as it is defined: one score matrix of all queries and keys, in float64, for every policy anew."""

import torch
from torch import Tensor

from parties.decoding.cache import Cache, LayerCache
from parties.decoding.decoder import Decoder
from parties.decoding.program import Program, run
from parties.engines.base import Engine
from parties.engines.watched import WatchedEngine


class NaiveEngine(WatchedEngine):
    """The plain engine with whole score matrices."""

    def attend(self, q: Tensor, layer: LayerCache, mask: Tensor | None = None, *, window: int = 0) -> Program[Tensor]:
        return Engine.attend(self, q, layer, mask, window=window)

    def causal_weights(self, q: Tensor, k: Tensor, first: int) -> Program[Tensor]:
        return Engine.causal_weights(self, q, k, first)


def prefilled(decoder: Decoder, prompt: list[int], inputs: list[Tensor] | None = None) -> Cache:
    """The cache that a decoder makes of a prompt."""
    cache = Cache.empty(decoder.spec.n_layers)
    run(decoder.prefill(run(decoder.embed(prompt, len(prompt), 0)), cache, inputs))
    return cache


def followed(decoder: Decoder, cache: Cache, text: list[int]) -> Tensor:
    """Logits of each step through a cache, [steps, vocab]."""
    logits = [run(decoder.step(run(decoder.embed([token], 1, cache.position)), cache)) for token in text]
    return torch.cat(logits)
