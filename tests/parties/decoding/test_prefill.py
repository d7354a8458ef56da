"""The prompt in segments: the same cache for all chunk sizes, bounded memory, nothing left behind."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from parties.decoding.cache import Cache
from parties.decoding.decoder import Decoder
from parties.decoding.prefill import chunked, prompt_segments
from parties.decoding.program import Program, run
from parties.decoding.workload import CHUNK_BYTES, Prefill
from parties.engines.plain import PlainEngine
from parties.metering.meter import StageMeter
from parties.models.folding import folded_shapes
from parties.policies import Full, MPCache
from parties.policies.base import Policy
from tests.helpers.tiny import LLAMA, SPECS, folded, plain_decoder, random_tokens

POLICIES: dict[str, Policy] = {"full": Full(), "mpcache": MPCache(fine_size=4, coarse_size=8)}


class Watching(PlainEngine):
    """Notes the shape of all scores."""

    def __init__(self) -> None:
        super().__init__(StageMeter())
        self.seen: list[tuple[int, ...]] = []

    def softmax(self, scores: Any, mask: torch.Tensor | None = None) -> Program[Any]:
        self.seen.append(tuple(scores.shape))
        return super().softmax(scores, mask)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(sorted(SPECS)), st.sampled_from(sorted(POLICIES)), st.data())
def test_the_cache_does_not_depend_on_the_chunks(family: str, policy: str, data: st.DataObject) -> None:
    tokens = data.draw(st.integers(1, 40), label="tokens")
    sizes = Prefill(tokens, data.draw(st.integers(1, tokens), label="chunk"))
    decoder, prompt = plain_decoder(SPECS[family], POLICIES[policy]), random_tokens(SPECS[family], tokens)
    whole, segmented = Cache.empty(SPECS[family].n_layers), Cache.empty(SPECS[family].n_layers)
    run(decoder.prefill(run(decoder.embed(prompt, tokens, 0)), whole))
    for segment in prompt_segments(decoder, segmented, prompt, sizes):
        run(segment())
    assert segmented.position == whole.position == tokens
    assert segmented.values().keys() == whole.values().keys()
    for name, value in whole.values().items():
        torch.testing.assert_close(segmented.values()[name], value, rtol=0, atol=1e-9)
    assert all(layer.rows == layer.queries == () for layer in segmented.layers), "the prompt's rows must not stay"


def test_a_cache_keeps_nothing_but_keys_and_values_in_memory() -> None:
    decoder, cache = plain_decoder(LLAMA, Full()), Cache.empty(LLAMA.n_layers)
    run(decoder.prefill(run(decoder.embed(random_tokens(LLAMA, 10), 10, 0)), cache))
    for layer in cache.layers:
        for held in (layer.k, layer.v):
            assert held.untyped_storage().nbytes() == held.numel() * held.element_size()
        assert layer.newest.untyped_storage().data_ptr() == layer.k.untyped_storage().data_ptr()


def test_a_chunk_is_scored_against_the_tokens_up_to_its_last_and_no_others() -> None:
    engine = Watching()
    run(engine.install(folded_shapes(LLAMA), folded(LLAMA)))
    decoder = Decoder(engine, LLAMA, Full())
    for segment in prompt_segments(decoder, Cache.empty(LLAMA.n_layers), random_tokens(LLAMA, 10), Prefill(10, 4)):
        run(segment())
    layer = [(LLAMA.n_heads, 4, 4), (LLAMA.n_heads, 4, 8), (LLAMA.n_heads, 2, 10)]
    assert engine.seen == layer * (LLAMA.n_layers - 1), "the output of the last layer is not needed"


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 1 << 16), st.integers(1, 1 << 15), st.integers(1, 128))
def test_a_chunk_is_as_large_as_memory_allows(tokens: int, intermediate: int, heads: int) -> None:
    spec = replace(LLAMA, intermediate=intermediate, n_heads=heads, n_kv_heads=1)
    decoder = Decoder(PlainEngine(StageMeter()), spec, Full())
    chunk = chunked(decoder, tokens).chunk
    row = max(intermediate, heads * tokens) * PlainEngine.number_bytes
    assert 1 <= chunk <= tokens
    assert chunk == 1 or chunk * row <= CHUNK_BYTES
    assert chunk == tokens or (chunk + 1) * row > CHUNK_BYTES


@pytest.mark.parametrize("tokens", [1, 2, 5])
def test_only_the_owner_needs_the_tokens_to_list_the_segments(tokens: int) -> None:
    decoder, sizes = plain_decoder(LLAMA, Full()), Prefill(tokens, 2)
    chunks = -(-tokens // 2)
    assert len(prompt_segments(decoder, Cache.empty(4), None, sizes)) == chunks + LLAMA.n_layers * (chunks + 1)
