"""Properties of every policy: true public counts, caches that can be handed over, and checked parameters."""

import inspect
from collections.abc import Mapping
from dataclasses import FrozenInstanceError, fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from parties.decoding.cache import Cache
from parties.decoding.clusters import Selection
from parties.decoding.decoder import Decoder
from parties.decoding.program import Program, run
from parties.engines.plain import PlainEngine
from parties.heads.folding import fold_head
from parties.heads.untrained import random_head
from parties.metering.meter import StageMeter
from parties.models.folding import fold, folded_shapes
from parties.models.spec import ModelSpec
from parties.policies import POLICIES, make
from parties.policies.base import Policy
from parties.policies.full import Full
from parties.policies.page import PAGE, page
from tests.helpers.naive_decoder import forward
from tests.helpers.tiny import GPT2, LLAMA, random_tokens, random_weights

SPECS = {
    "llama": LLAMA,
    "llama_one_kv_head": replace(LLAMA, n_layers=5, n_kv_heads=1, qkv_bias=True, tied=False),
    "gpt2": replace(GPT2, n_layers=4),
}


class WatchedEngine(PlainEngine):
    """The plain engine; records the number of tokens and the selection of each attention."""

    def __init__(self) -> None:
        super().__init__(StageMeter())
        self.widths: list[int] = []
        self.selections: list[Selection] = []

    def softmax(self, scores: Any, mask: Tensor | None = None) -> Program[Any]:
        self.widths.append(scores.shape[2])
        return super().softmax(scores, mask)

    def attend_selected(self, q: Any, layer: Any, selection: Selection) -> Program[Any]:
        self.selections.append(selection)
        return super().attend_selected(q, layer, selection)


def precise_weights(spec: ModelSpec, seed: int = 0) -> dict[str, Tensor]:
    """Canonical weights in float64, so that folding causes no significant rounding."""
    return {name: tensor.double() for name, tensor in random_weights(spec, seed).items()}


def decoder_of(spec: ModelSpec, weights: Mapping[str, Tensor], policy: Policy) -> tuple[Decoder, WatchedEngine]:
    engine, heads = WatchedEngine(), {}
    if policy.trained:
        heads = fold_head(random_head(policy.trained, spec, weights), spec, {k: w.float() for k, w in weights.items()})
    run(engine.install(folded_shapes(spec), fold(spec, weights) | heads))
    return Decoder(engine, spec, policy), engine


def prefilled(decoder: Decoder, prompt: list[int]) -> Cache:
    """All but the last token of the prompt, which is the first step's."""
    cache = Cache.empty(decoder.spec.n_layers)
    run(decoder.prefill(run(decoder.embed(prompt[:-1], len(prompt) - 1, 0)), cache))
    return cache


def step(decoder: Decoder, cache: Cache, token: int) -> Tensor:
    """Logits, [vocab]."""
    logits: Tensor = run(decoder.step(run(decoder.embed([token], 1, cache.position)), cache))
    return logits[0]


def generate(decoder: Decoder, cache: Cache, token: int, count: int) -> tuple[list[int], Tensor]:
    """Greedy tokens, and the logits of each, [count, vocab]."""
    tokens, logits = [], []
    for _ in range(count):
        logits.append(step(decoder, cache, token))
        token = int(logits[-1].argmax())
        tokens.append(token)
    return tokens, torch.stack(logits)


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
@pytest.mark.parametrize("seq_len", [2, 16, 41])
def test_the_full_cache_decodes_like_a_forward_pass_over_the_whole_text(spec: ModelSpec, seq_len: int) -> None:
    weights, prompt = precise_weights(spec, seed=seq_len), random_tokens(spec, seq_len, seed=seq_len)
    decoder, _ = decoder_of(spec, weights, Full())
    tokens, logits = generate(decoder, prefilled(decoder, prompt), prompt[-1], 6)
    expected = forward(spec, weights, prompt + tokens[:-1])[seq_len - 1 :]
    assert tokens == expected.argmax(dim=1).tolist()
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("seq_len", [2, 3, 33, 50])
def test_cached_held_and_attended_counts_are_true(name: str, seq_len: int) -> None:
    policy, prompt = make(name), random_tokens(LLAMA, seq_len)
    decoder, engine = decoder_of(LLAMA, precise_weights(LLAMA), policy)
    cache = prefilled(decoder, prompt)
    assert sum(cache.tokens) == pytest.approx(policy.cached(seq_len - 1) * LLAMA.n_layers, abs=LLAMA.n_layers)
    dense = getattr(policy, "dense_layers", 0)
    for generated in range(1, 80):
        engine.widths.clear()
        before = cache.tokens
        step(decoder, cache, generated)
        held = [tokens + 1 for tokens in before]
        assert held == [policy.held(seq_len - 1, generated)] * LLAMA.n_layers
        assert engine.widths == held[:dense] + [policy.attended(tokens) for tokens in held[dense:]]


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
@pytest.mark.slow
def test_a_cache_that_is_handed_over_decodes_the_same(name: str, spec: ModelSpec) -> None:
    prompt = random_tokens(spec, 70)
    decoder, _ = decoder_of(spec, precise_weights(spec), make(name))
    cache = prefilled(decoder, prompt)
    received = Cache.from_values(spec.n_layers, cache.position, cache.values())
    tokens, logits = generate(decoder, received, prompt[-1], 5)
    expected_tokens, expected_logits = generate(decoder, cache, prompt[-1], 5)
    assert tokens == expected_tokens
    assert torch.equal(logits, expected_logits)


@pytest.mark.parametrize("name", POLICIES)
def test_policies_come_by_name_with_their_defaults_and_do_not_change(name: str) -> None:
    policy = make(name)
    assert type(policy) is POLICIES[name]
    assert policy == POLICIES[name]()
    for field in fields(policy):
        assert make(name, **{field.name: getattr(policy, field.name)}) == policy
        with pytest.raises(FrozenInstanceError):
            setattr(policy, field.name, 1)


@pytest.mark.parametrize("name", ["", "MPCache", "h2o_", "full "])
def test_an_unknown_policy_is_refused_with_the_names_that_exist(name: str) -> None:
    with pytest.raises(ValueError, match=r"^no policy ") as caught:
        make(name)
    for part in (repr(name), *POLICIES):
        assert part in str(caught.value)


@pytest.mark.parametrize("name", POLICIES)
def test_an_unknown_parameter_is_refused_with_those_that_exist(name: str) -> None:
    known = [field.name for field in fields(POLICIES[name])]
    with pytest.raises(ValueError, match=r"^keep: ") as caught:
        make(name, keep=0.5)
    for part in (name, *(known or ["no parameters"])):
        assert part in str(caught.value)


SHARES = ("select", "coarse", "alpha")
POSITIVE_SHARES = ("static_keep", "window")
COUNTS = {"fine_size": 1, "coarse_size": 1, "share_from": 0, "share_layers": 1}
NAN, INF = float("nan"), float("inf")
OUT_OF_RANGE = [
    *((key, value, "[0, 1]") for key in SHARES for value in (-0.01, 1.01, 40, NAN, INF, -INF)),
    *((key, value, "(0, 1]") for key in POSITIVE_SHARES for value in (0, 0.0, -0.01, 1.01, 40, NAN, INF, -INF)),
    *((key, value, f"at least {least}") for key, least in COUNTS.items() for value in (least - 1, -7)),
    ("coarse_size", 24, "multiple of fine_size 16"),
    ("coarse_size", 8, "multiple of fine_size 16"),
]


@pytest.mark.parametrize(("key", "value", "allowed"), OUT_OF_RANGE)
def test_mpcache_refuses_a_value_out_of_range_with_its_name_and_reason(key: str, value: Any, allowed: str) -> None:
    with pytest.raises(ValueError, match=f"^{key}: ") as caught:
        make("mpcache", **{key: value})
    assert str(value) in str(caught.value)
    assert allowed in str(caught.value)


WRONG_TYPE = [
    *((key, value) for key in (*SHARES, *POSITIVE_SHARES) for value in ("0.5", None)),
    *((key, value) for key in COUNTS for value in ("32", None, 32.0, 2.5, INF, NAN)),
]


@pytest.mark.parametrize(("key", "value"), WRONG_TYPE)
def test_mpcache_refuses_a_value_of_the_wrong_type_by_name(key: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{key}: ") as caught:
        make("mpcache", **{key: value})
    assert str(value) in str(caught.value)


@pytest.mark.parametrize(
    "parameters",
    [
        {"static_keep": 1e-9, "window": 1e-9, "select": 0, "coarse": 0, "alpha": 0},
        {"static_keep": 1, "window": 1, "select": 1, "coarse": 1, "alpha": 1},
        {"fine_size": 1, "coarse_size": 1, "share_from": 0, "share_layers": 1},
        {"fine_size": 16, "coarse_size": 16, "share_from": 10**6, "share_layers": 10**6},
    ],
)
def test_mpcache_takes_the_ends_of_its_ranges_and_decodes(parameters: dict[str, Any]) -> None:
    policy = make("mpcache", **parameters)
    prompt = random_tokens(LLAMA, 40)
    decoder, engine = decoder_of(LLAMA, precise_weights(LLAMA), policy)
    cache = prefilled(decoder, prompt)
    engine.widths.clear()
    assert step(decoder, cache, prompt[-1]).isfinite().all()
    assert engine.widths == [policy.attended(policy.cached(39) + 1)] * LLAMA.n_layers


REFUSED: list[tuple[str, str, Any]] = [
    *((name, "compression_ratio", value) for name in POLICIES for value in (1.0, -0.1, 50, NAN, "0.5", None)),
    *((name, "mode", value) for name in POLICIES for value in ("drop", None, True)),
    *((name, "compression_interval", value) for name in POLICIES for value in (0, -1, 1.5, "64")),
    *((name, "compact_every", value) for name in POLICIES for value in (-1, 63, 1.0)),
    *((name, "window_size", value) for name in ("snapkv", "pyramidkv", "mpcache+") for value in (0, 1.0, "8")),
    *((name, "kernel_size", value) for name in ("snapkv", "pyramidkv", "mpcache+") for value in (0, 4, 2.5)),
    *((name, "nbits", value) for name in ("kivi", "mikv", "locret") for value in (-1, 9, 2.0)),
    ("snapkv", "pooling", "sum"), ("pyramidkv", "beta", 0.5), ("pyramidkv", "beta", NAN), ("random", "seed", -1),
    ("streaming_llm", "n_sink", -1), ("h2o", "recent", 1.5), ("lazy_eviction", "alpha", 2),
    ("lazy_eviction", "levels", 0), ("lazy_eviction", "offset", 1), ("locret", "chunk_size", -1),
    ("attention_gate", "form", "soft"),
    ("attention_gate", "threshold", 1), ("attention_gate", "threshold", "0.5"), ("quest", "page_size", 0),
    ("quest", "dense_layers", -1), ("infllm", "n_local", 0), ("infllm", "repr_topk", 33), ("mikv", "balancer", 0),
    ("kivi", "residual_length", 100), ("kivi", "group_size", 0), ("mpcache+", "static_keep", 0),
    ("mpcache+", "select", 2),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        (name, key, value)
        for name, key, value in REFUSED
        if key in {field.name for field in fields(POLICIES[name])}
        and (name, key, value) != ("streaming_llm", "compact_every", 63)  # its interval is 1
    ],
)
def test_an_impossible_parameter_is_refused_by_its_name(name: str, key: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{key}: ") as caught:
        make(name, **{key: value})
    assert str(value) in str(caught.value)


@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_states_what_it_keeps_costs_leaks_and_needs(name: str) -> None:
    policy = POLICIES[name]
    for fact in (policy.keeps, policy.prefill_cost, policy.step_cost, policy.leaks, policy.training, policy.source):
        assert fact
    assert policy.leaks == Policy.leaks, "no default reveals more than public counts"
    assert (policy.training == "none") == (policy.trained is None)
    docstring = inspect.getdoc(policy) or ""
    for field in fields(policy):
        assert f"\n    {field.name}: " in docstring, f"{name} does not document {field.name}"


def test_the_page_of_policies_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run python -m parties.policies.page"
