"""MPCache against an independent reference, token by token: logits, kept tokens, selected clusters, counts."""

from dataclasses import dataclass, replace
from itertools import compress
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from parties.decoding.cache import Cache
from parties.decoding.clusters import Selection
from parties.models.spec import ModelSpec
from parties.policies.full import Full
from parties.policies.mpcache import MPCache
from tests.helpers.naive_mpcache import NaiveMPCache, Settings
from tests.helpers.tiny import random_tokens
from tests.parties.policies.test_policies import SPECS, decoder_of, generate, precise_weights, prefilled, step

SMALL: dict[str, Any] = {"fine_size": 4, "coarse_size": 8}


@dataclass(frozen=True)
class Decoded:
    """The common result of project and reference: the attended tokens of each step, layer and head."""

    tokens: list[int]
    kept: list[list[int]]
    attended: list[list[list[list[int]]]]


def attended_by_head(selection: Selection, heads: int) -> list[list[int]]:
    """The cached tokens that each head was given."""
    always = [token for span in selection.always for token in range(*span)]
    picked = selection.selected.index.tolist() if selection.count else [[]] * heads
    start, size = selection.candidates[0], range(selection.size)
    rows = [sorted([*always, *(start + cluster * len(size) + i for cluster in row for i in size)]) for row in picked]
    return [row for row in rows for _ in range(heads // len(rows))]


def cached_rows(cache: Cache) -> list[list[Tensor]]:
    return [[layer.k, layer.v] for layer in cache.layers]


def agree(
    spec: ModelSpec,
    seq_len: int,
    new_tokens: int,
    seed: int = 0,
    weights: dict[str, Tensor] | None = None,
    **parameters: Any,
) -> Decoded:
    """Decodes with project and reference, each with its own tokens, and compares all results."""
    weights = weights or precise_weights(spec, seed)
    prompt = random_tokens(spec, seq_len, seed)
    policy = MPCache(**parameters)
    decoder, engine = decoder_of(spec, weights, policy)
    cache = prefilled(decoder, prompt)
    naive = NaiveMPCache(spec, weights, prompt[:-1], Settings(**parameters))

    for layer, source_layer in enumerate(naive.source_layers):
        assert policy.source_layer(layer) == source_layer
        assert cache.layers[source_layer].kept.tolist() == naive.kept[layer]
        assert len(naive.kept[layer]) == policy.cached(seq_len - 1)

    token = expected_token = prompt[-1]
    decoded = Decoded([], naive.kept, [])
    for _ in range(new_tokens):
        engine.selections.clear()
        logits, expected = step(decoder, cache, token), naive.step(expected_token)
        attended = [attended_by_head(selection, spec.n_heads) for selection in engine.selections]
        chosen = [policy.chooses(source_layer) for source_layer in naive.source_layers]
        assert attended == list(compress(expected.attended, chosen))
        for layer, rows in enumerate(cached_rows(cache)):
            for ours, theirs in zip(rows, (naive.k[layer], naive.v[layer]), strict=True):
                torch.testing.assert_close(ours, torch.tensor(theirs, dtype=torch.float64), rtol=0, atol=1e-9)
        assert {len(tokens) for heads in attended for tokens in heads} <= {policy.attended(cache.layers[0].tokens)}
        torch.testing.assert_close(logits, expected.logits, rtol=0, atol=1e-8)
        token, expected_token = int(logits.argmax()), int(expected.logits.argmax())
        assert token == expected_token
        decoded.tokens.append(token)
        decoded.attended.append(expected.attended)
    return decoded


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_with_the_papers_parameters(spec: ModelSpec) -> None:
    agree(spec, seq_len=230, new_tokens=8)


@pytest.mark.parametrize("seq_len", [2, 3, 5, 15, 16, 17, 31, 32, 33, 48, 63, 64, 65, 95, 96, 97])
def test_cache_lengths_around_whole_clusters(seq_len: int) -> None:
    """All of the prompt stays, so the first step sees `seq_len` cached tokens, the second one more."""
    spec = replace(SPECS["llama"], n_layers=2)
    agree(spec, seq_len, new_tokens=2, seed=seq_len, static_keep=1, select=0.3, share_from=0)


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_clusters_fill_and_new_ones_open_as_text_grows(spec: ModelSpec) -> None:
    decoded = agree(spec, seq_len=20, new_tokens=40, seed=1, select=0.3, **SMALL)
    assert len(decoded.tokens) == 40


@pytest.mark.parametrize("alpha", [0, 0.6, 1])
def test_every_alpha(alpha: float) -> None:
    agree(SPECS["llama"], seq_len=60, new_tokens=4, seed=2, alpha=alpha, static_keep=1, **SMALL)


@pytest.mark.parametrize("select", [0, 0.2, 1])
@pytest.mark.parametrize("coarse", [0, 0.5, 1])
def test_every_share_of_clusters(select: float, coarse: float) -> None:
    agree(SPECS["gpt2"], seq_len=70, new_tokens=3, seed=3, select=select, coarse=coarse, static_keep=0.8, **SMALL)


@pytest.mark.parametrize("share_layers", [1, 2, 3])
@pytest.mark.parametrize("share_from", [0, 1, 2, 9])
@pytest.mark.parametrize("ahead", [False, True])
def test_every_way_to_share_layers(ahead: bool, share_layers: int, share_from: int) -> None:
    spec = SPECS["llama_one_kv_head"]
    agree(spec, 40, 2, seed=4, ahead=ahead, share_layers=share_layers, share_from=share_from, select=0.3, **SMALL)


@pytest.mark.parametrize("spec", ["llama", "llama_one_kv_head"])
@pytest.mark.parametrize("ahead", [False, True])
def test_heads_that_share_a_key_head_select_together(ahead: bool, spec: str) -> None:
    decoded = agree(SPECS[spec], 60, 2, seed=7, ahead=ahead, by="key_head", select=0.3, static_keep=0.8, **SMALL)
    heads = decoded.attended[0][1]
    size = SPECS[spec].n_heads // SPECS[spec].n_kv_heads
    assert all(heads[i] == heads[i - i % size] for i in range(len(heads)))


def test_a_guess_of_the_query_is_not_the_query() -> None:
    """Otherwise an agreement of both would prove little."""
    own, ahead = (
        agree(SPECS["llama"], 90, 4, seed=6, static_keep=0.7, ahead=ahead, **SMALL) for ahead in (False, True)
    )
    assert ahead.attended[0][0] == [list(range(63))] * SPECS["llama"].n_heads
    assert own.attended[0][1] != ahead.attended[0][1]


@pytest.mark.parametrize("window", [0.01, 0.2, 0.5, 1])
def test_every_window_of_queries(window: float) -> None:
    agree(SPECS["llama"], seq_len=40, new_tokens=1, seed=5, window=window, static_keep=0.3, **SMALL)


@given(
    spec=st.sampled_from(list(SPECS.values())),
    seed=st.integers(0, 1000),
    seq_len=st.integers(2, 60),
    new_tokens=st.integers(1, 8),
    sizes=st.sampled_from([(16, 32), (4, 8), (2, 8), (1, 2), (8, 8), (3, 9)]),
    static_keep=st.floats(0.05, 1),
    select=st.floats(0, 1),
    coarse=st.floats(0, 1),
    alpha=st.floats(0, 1),
    share_from=st.integers(0, 3),
    share_layers=st.integers(1, 3),
    ahead=st.booleans(),
)
@settings(max_examples=30, deadline=None)
def test_all_parameters(
    spec: ModelSpec, seed: int, seq_len: int, new_tokens: int, sizes: tuple[int, int], **parameters: Any
) -> None:
    agree(spec, seq_len, new_tokens, seed, fine_size=sizes[0], coarse_size=sizes[1], **parameters)


def test_choices_depend_on_head_step_and_layer() -> None:
    """Otherwise an agreement of both would prove little."""
    decoded = agree(SPECS["llama"], 90, 6, seed=6, static_keep=0.7, share_from=0, share_layers=1, **SMALL)
    heads = decoded.attended[0][0]
    assert any(head != heads[0] for head in heads)
    layers = decoded.attended[0]
    assert any(layer != layers[0] for layer in layers)
    first_layer_at = [layers[0] for layers in decoded.attended]
    assert any(choice != first_layer_at[0] for choice in first_layer_at)
    assert any(kept != decoded.kept[0] for kept in decoded.kept)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_among_equals_the_lower_index_is_selected(name: str) -> None:
    """Queries of zero attend to everything equally: the prompt's start is kept, and the first clusters are selected."""
    spec = SPECS[name]
    weights = precise_weights(spec)
    weights |= {key: torch.zeros_like(w) for key, w in weights.items() if ".q." in key}
    decoded = agree(spec, 51, 3, weights=weights, static_keep=0.8, select=0.3, **SMALL)
    assert decoded.kept == [list(range(40))] * spec.n_layers
    # 41 tokens are 11 fine clusters: the first and the last, and int(11 * 0.3) = 3 selected
    assert decoded.attended[0] == [[[*range(16), 40]] * spec.n_heads] * spec.n_layers


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
@pytest.mark.parametrize("sizes", [(16, 32), (4, 8)])
def test_keeping_and_selecting_everything_is_the_full_cache(spec: ModelSpec, sizes: tuple[int, int]) -> None:
    everything = MPCache(static_keep=1, select=1, coarse=1, fine_size=sizes[0], coarse_size=sizes[1])
    weights, prompt = precise_weights(spec, seed=7), random_tokens(spec, 75, seed=7)
    results = []
    for policy in (Full(), everything):
        decoder, engine = decoder_of(spec, weights, policy)
        results.append(generate(decoder, prefilled(decoder, prompt), prompt[-1], 10))
        assert engine.widths[-10 * spec.n_layers :] == [75 + i for i in range(10) for _ in range(spec.n_layers)]
    (tokens, logits), (other_tokens, other_logits) = results
    assert tokens == other_tokens
    torch.testing.assert_close(logits, other_logits, rtol=0, atol=1e-10)
