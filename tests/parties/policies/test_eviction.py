"""Eviction against independent references, in both modes; and properties of every policy for all parameters."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from parties.decoding.cache import Cache, LayerCache
from parties.decoding.program import run
from parties.engines.plain import PlainEngine
from parties.metering.meter import StageMeter
from parties.policies import POLICIES
from parties.policies.lazy_eviction import LazyEviction
from parties.policies.lowest import lowest
from parties.policies.pyramidkv import PyramidKV
from tests.helpers.naive_eviction import (
    Choice,
    CurrentQuery,
    HeavyHitters,
    NaiveEviction,
    Pages,
    Recurrence,
    Snap,
    Streaming,
    recurrence_score,
)
from tests.helpers.policy_cases import SPEC, VARIANTS, case, decode, plain, small, tokens
from tests.helpers.tiny import random_tokens
from tests.parties.policies.test_policies import precise_weights

WEIGHTS = precise_weights(SPEC)
RATIOS = st.floats(0.05, 0.95)
BY_STEP: dict[str, Any] = {"compression_interval": 1}


def reference(name: str, ratio: float, interval: int) -> tuple[Choice, dict[str, Any]]:
    """A naive policy, and the same parameters for the project's."""
    lazily = {"compression_ratio": ratio, "compression_interval": interval}
    once = {"compression_ratio": ratio}
    found: dict[str, tuple[Choice, dict[str, Any]]] = {
        "streaming_llm": (Streaming(ratio, interval, 2), {**lazily, "n_sink": 2}),
        "h2o": (HeavyHitters(ratio, interval, 0.5), lazily),
        "tova": (CurrentQuery(ratio, interval), lazily),
        "snapkv": (Snap(ratio, 4, 3, sum), {**once, "window_size": 4, "kernel_size": 3}),
        "snapkv by maximum": (Snap(ratio, 4, 3, max), {**once, "kernel_size": 3, "pooling": "max"}),
        "quest": (Pages(ratio, 4), once),
    }
    return found[name]


NAMES = ("streaming_llm", "h2o", "tova", "snapkv", "snapkv by maximum", "quest")


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(NAMES), RATIOS, st.integers(1, 4), st.integers(1, 22), st.integers(0, 99), st.booleans())
def test_decodes_like_an_independent_reference(
    name: str, ratio: float, interval: int, length: int, seed: int, masked: bool
) -> None:
    prompt, text = tokens(prompt=length, steps=6, seed=seed)
    choices, changes = zip(*(reference(name, ratio, interval) for _ in range(SPEC.n_layers)), strict=True)
    naive = NaiveEviction(SPEC, WEIGHTS, prompt, list(choices))
    masking = {"mode": "mask"} if masked and name != "quest" else {}
    policy = small(name.split()[0], **changes[0], **masking)
    found = decode(plain(policy, weights=WEIGHTS), prompt, text)
    expected = torch.stack([naive.logits(token) for token in text])
    torch.testing.assert_close(found.logits, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["h2o", "tova", "streaming_llm", "snapkv"])
def test_among_equals_the_lower_index_stays(name: str) -> None:
    """Queries of zero attend to everything equally."""
    flat = WEIGHTS | {key: torch.zeros_like(w) for key, w in WEIGHTS.items() if ".q." in key}
    prompt, text = tokens(prompt=11, steps=5)
    for interval in (1, 2):
        choices, changes = zip(*(reference(name, 0.5, interval) for _ in range(SPEC.n_layers)), strict=True)
        naive = NaiveEviction(SPEC, flat, prompt, list(choices))
        found = decode(plain(small(name, **changes[0]), weights=flat), prompt, text)
        expected = torch.stack([naive.logits(token) for token in text])
        torch.testing.assert_close(found.logits, expected, rtol=0, atol=1e-6)


def test_ages_and_recurrence_intervals_are_counted_from_the_hits() -> None:
    prompt, text = tokens(prompt=9, steps=12)
    policy = small("lazy_eviction", compression_interval=100)
    decoder, cache = plain(policy, weights=WEIGHTS), Cache.empty(SPEC.n_layers)
    choices = [Recurrence(0.5, 10**9, 0.05) for _ in range(SPEC.n_layers)]
    naive = NaiveEviction(SPEC, WEIGHTS, prompt, list[Choice](choices))
    run(decoder.prefill(run(decoder.embed(prompt, len(prompt), 0)), cache))
    for now, token in enumerate(text, 1):
        run(decoder.step(run(decoder.embed([token], 1, cache.position)), cache))
        naive.logits(token)
        for layer, choice in zip(cache.layers, choices, strict=True):
            ages = [[now - seen for seen in row.values()] for row in choice.seen]
            assert layer.state["age"].tolist() == ages
            assert layer.state["recurrence"].tolist() == [list(row.values()) for row in choice.longest]
    assert max(max(row.values()) for row in choices[0].longest) > 1


@pytest.mark.parametrize("offset", [True, False])
def test_the_recurrence_score_orders_as_its_formula_but_for_the_classes_of_its_first_term(offset: bool) -> None:
    states = [(age, longest) for age in (0, 1, 2, 3, 5, 9, 20, 70) for longest in (0, 1, 2, 3, 4, 6, 8, 9, 30, 100)]
    policy, engine = LazyEviction(offset=offset), PlainEngine(StageMeter())
    here = LayerCache(state={})
    for index, name in enumerate(("age", "recurrence")):
        here.state[name] = torch.tensor([[float(state[index]) for state in states]])
    score, bound = run(policy.rate(engine, Cache([here], 200, 100), here, None, slice(0, len(states))))
    shift = 0.0 if offset else 2 / (1 + 1) - 2 / (1 + torch.e)
    slack = 2 / (1 + torch.e) / policy.levels + 4 / 512 + shift
    assert score.abs().max() < bound
    for i, one in enumerate(states):
        for j, other in enumerate(states):
            if recurrence_score(*one) > recurrence_score(*other) + slack:
                assert score[0, i] > score[0, j], (one, other)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 70), st.integers(1, 3), st.integers(2, 50), st.integers(0, 99))
def test_the_lowest_is_found_and_the_higher_index_among_equals(n: int, rows: int, kinds: int, seed: int) -> None:
    scores = torch.randint(kinds, (rows, n), generator=torch.Generator().manual_seed(seed)).double()
    found = run(lowest(PlainEngine(StageMeter()), scores, 64.0))
    last = n - 1 - scores.flip(1).argmin(dim=1)
    assert found.tolist() == torch.zeros(rows, n).scatter(1, last.unsqueeze(1), 1.0).tolist()


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("length", [1, 2, 5, 13])
@pytest.mark.slow
def test_held_tokens_are_the_public_ones_for_every_length(name: str, length: int) -> None:
    policy, (prompt, text) = case(name), tokens(prompt=length, steps=9)
    decoder = plain(policy)
    found = decode(decoder, prompt, text)
    assert found.logits.isfinite().all()
    if isinstance(policy, PyramidKV):
        compact = policy.mode == "compact"
        sizes = policy.layer_budgets(length, SPEC.n_layers) if compact else (length,) * SPEC.n_layers
        assert found.held == [[size + generated for size in sizes] for generated in range(1, 10)]
    else:
        assert found.held == [[policy.held(length, generated)] * SPEC.n_layers for generated in range(1, 10)]


KEEPS_ALL: dict[str, dict[str, Any]] = {
    "kivi": {"residual_length": 64, "group_size": 4},
    "mpcache": {"static_keep": 1.0, "select": 1.0, "coarse": 1.0},
    "mpcache+": {"static_keep": 1.0, "select": 1.0},
}


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("length", [1, 3, 20])
def test_a_budget_of_everything_is_the_full_cache(name: str, length: int) -> None:
    prompt, text = tokens(prompt=length, steps=6)
    policy = small(name, **(KEEPS_ALL.get(name) or ({} if name == "full" else {"compression_ratio": 0.0})))
    expected = decode(plain(small("full"), weights=WEIGHTS), prompt, text)
    found = decode(plain(policy, weights=WEIGHTS), prompt, text)
    torch.testing.assert_close(found.logits, expected.logits, rtol=0, atol=1e-9)
    assert found.held == expected.held


MODES = [name for name, policy in POLICIES.items() if "mode" in policy.__dataclass_fields__]


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(MODES), st.floats(0.05, 0.95), st.integers(1, 20), st.integers(1, 3), st.integers(0, 3))
def test_masking_decodes_like_compacting(name: str, ratio: float, length: int, interval: int, every: int) -> None:
    prompt, text = tokens(prompt=length, steps=7, seed=length)
    changes: dict[str, Any] = {"compression_ratio": ratio}
    masked: dict[str, Any] = {"mode": "mask"}
    if "compression_interval" in POLICIES[name].__dataclass_fields__:
        changes["compression_interval"] = interval
        masked["compact_every"] = every * interval
    compact = decode(plain(small(name, **changes), weights=WEIGHTS), prompt, text)
    masking = small(name, **changes, **masked)
    found = decode(plain(masking, weights=WEIGHTS), prompt, text)
    torch.testing.assert_close(found.logits, compact.logits, rtol=0, atol=1e-6)
    assert found.held == [[masking.held(length, generated)] * SPEC.n_layers for generated in range(1, 8)]


def test_a_masked_cache_that_is_handed_over_decodes_the_same() -> None:
    prompt, text = tokens(prompt=20, steps=6)
    decoder, cache = plain(small("h2o", mode="mask", compact_every=4), weights=WEIGHTS), Cache.empty(SPEC.n_layers)
    run(decoder.prefill(run(decoder.embed(prompt, len(prompt), 0)), cache))
    received = Cache.from_values(SPEC.n_layers, cache.position, cache.values())
    for token in text:
        logits = [run(decoder.step(run(decoder.embed([token], 1, c.position)), c)) for c in (cache, received)]
        assert torch.equal(*logits)


def test_the_pyramid_falls_and_sums_to_the_budget() -> None:
    policy = small("pyramidkv", compression_ratio=0.5, window_size=8, beta=10)
    assert isinstance(policy, PyramidKV)
    sizes = policy.layer_budgets(400, 12)
    assert list(sizes) == sorted(sizes, reverse=True)
    assert len(set(sizes)) == 12
    assert abs(sum(sizes) - 12 * 200) <= 12
    assert policy.layer_budgets(10, 12) == (policy.cached(10),) * 12, "too short for a pyramid: all alike"


def test_random_tokens_are_the_seeds_and_no_others() -> None:
    prompt, text = random_tokens(SPEC, 30), [1]
    one, same, other = (decode(plain(small("random", seed=seed)), prompt, text).logits for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_chunks_of_locret_make_a_difference_and_stabilizers_too() -> None:
    prompt, text = tokens(prompt=24, steps=2)
    spec = replace(SPEC, n_layers=3)
    variants = [{}, {"chunk_size": 6, "stabilizers": 0}, {"chunk_size": 6, "stabilizers": 6}]
    logits = [decode(plain(small("locret", **{"n_local": 1, **v}), spec), prompt, text).logits for v in variants]
    assert all(not torch.equal(logits[i], logits[j]) for i in range(3) for j in range(i))
