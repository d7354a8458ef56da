"""Drafts: whatever is drafted, a model decodes what it decodes one by one, with each policy that can."""

from functools import cache as cached
from typing import Any

import pytest
import torch
from torch import Tensor

from parties.decoding.cache import Cache
from parties.decoding.decoder import Decoder, draft_problem
from parties.decoding.drafts import Drafting, LookUp
from parties.decoding.program import run
from parties.decoding.steps import decode_token
from parties.engines.plain import PlainEngine
from parties.engines.spu.engine import SpuEngine
from parties.errors import Unsupported
from parties.options import RunOptions
from parties.policies import POLICIES, make
from parties.roles.drafter import ModelDrafter
from tests.helpers.adversary import ALL, Adversary
from tests.helpers.tiny import FAMILIES, plain_decoder, random_tokens

STEPS, DRAFT = 14, 4
CELLS: dict[str, tuple[str, dict[str, Any]]] = {
    "full": ("llama", {"name": "full"}),
    "learned positions": ("gpt2", {"name": "full"}),
    "windows": ("gemma3_text", {"name": "full"}),
    "snapkv": ("llama", {"name": "snapkv", "window_size": 8}),
    "snapkv, masked": ("llama", {"name": "snapkv", "window_size": 8, "mode": "mask"}),
    "pyramidkv": ("llama", {"name": "pyramidkv", "window_size": 8}),
    "random": ("llama", {"name": "random"}),
    "mpcache": ("llama", {"name": "mpcache", "static_keep": 0.6, "select": 0.3, "fine_size": 4, "coarse_size": 8}),
    "mpcache ahead": ("llama", {"name": "mpcache", "select": 0.3, "fine_size": 4, "coarse_size": 8, "ahead": True}),
    "mpcache+": ("llama", {"name": "mpcache+", "cluster_size": 4, "window_size": 8}),
    "quest": ("llama", {"name": "quest", "page_size": 4, "dense_layers": 1}),
    "quest ahead": ("llama", {"name": "quest", "page_size": 4, "ahead": True}),
    "h2o": ("llama", {"name": "h2o", "compression_interval": 6}),
    "h2o, masked": ("llama", {"name": "h2o", "compression_interval": 3, "mode": "mask", "compact_every": 6}),
    "tova": ("llama", {"name": "tova", "compression_interval": 5}),
    "lazy_eviction": ("llama", {"name": "lazy_eviction", "compression_interval": 6}),
    "streaming_llm": ("llama", {"name": "streaming_llm", "compression_interval": 4}),
    "mikv": ("llama", {"name": "mikv", "compression_interval": 6}),
}


def prefilled(name: str) -> tuple[Decoder, Cache, list[int]]:
    family, policy = CELLS[name]
    spec = FAMILIES[family]
    prompt, decoder, cache = (
        random_tokens(spec, 40, seed=29),
        plain_decoder(spec, make(**policy)),
        Cache.empty(spec.n_layers),
    )
    run(decoder.prefill(run(decoder.embed(prompt[:-1], len(prompt) - 1, 0)), cache))
    return decoder, cache, prompt


@cached
def one_by_one(name: str) -> tuple[list[Tensor], list[int], dict[str, Tensor]]:
    """Logits, tokens and the cache afterwards."""
    decoder, cache, prompt = prefilled(name)
    logits, tokens = [], [prompt[-1]]
    for _ in range(STEPS):
        found, chosen = run(decode_token(decoder, cache, tokens[-1:], "private"))
        logits.append(found)
        tokens += chosen or []
    return logits, tokens[1:], values_of(decoder, cache)


def values_of(decoder: Decoder, cache: Cache) -> dict[str, Tensor]:
    """The values of a cache, without the columns that wait for later tokens."""
    waiting = {"alive", *decoder.policy.begin_tokens(1)}
    return {
        f"{index}.{name}": value[:, : value.shape[1] - layer.room * (name in waiting)]
        for index, layer in enumerate(cache.layers)
        for name, value in layer.values().items()
    }


@pytest.mark.parametrize("wrong", [None, ALL, 0, 2, DRAFT - 1])
@pytest.mark.parametrize("name", CELLS)
def test_text_and_cache_are_those_of_decoding_one_by_one(name: str, wrong: int | None) -> None:
    logits, tokens, values = one_by_one(name)
    decoder, cache, prompt = prefilled(name)
    drafting = Drafting(decoder, cache, STEPS, DRAFT, "private", Adversary(tokens, wrong), list(prompt))
    passes = list(drafting.passes())
    assert [token for found in passes for token in found.tokens] == tokens == drafting.text[len(prompt) :]
    for mine, theirs in zip((row for found in passes for row in found.logits), logits, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-9)
    assert cache.position == len(prompt) - 1 + STEPS
    torch.testing.assert_close(values_of(decoder, cache), values, rtol=0, atol=1e-9)
    assert sum(drafting.accepted) + len(passes) == STEPS
    assert all(0 <= mine <= most for mine, most in zip(drafting.accepted, drafting.drafted, strict=True))
    if wrong in (0, ALL):
        assert not any(drafting.accepted)
    else:
        assert sum(drafting.accepted) >= STEPS // 4


def test_a_full_cache_accepts_all_that_is_right() -> None:
    _, tokens, _ = one_by_one("full")
    for wrong, accepted in ((None, (4, 4, 3)), (2, (2, 2, 2, 2, 1)), (DRAFT - 1, (3, 3, 3, 1))):
        decoder, cache, prompt = prefilled("full")
        drafting = Drafting(decoder, cache, STEPS, DRAFT, "private", Adversary(tokens, wrong), list(prompt))
        list(drafting.passes())
        assert drafting.accepted == accepted


@pytest.mark.parametrize(("text", "draft"), [
    ([1, 2, 3, 4, 9, 2, 3], [4, 9, 2, 3]),  # what followed the last time
    ([5, 1, 2, 7, 6, 1, 2, 8, 5, 1, 2], [7, 6, 1, 2]),  # the longer match, though it is not the last
    ([1, 2, 7, 3, 1, 2, 8, 3, 1, 2], [8, 3, 1, 2]),  # the later one of equal matches
    ([3, 4, 4], [4, 4, 4, 4]),  # a draft may continue into itself
    ([1, 2, 3], [3, 3, 3, 3]),  # nothing found: as long as ever
])  # fmt: skip
def test_a_look_up_continues_the_longest_match(text: list[int], draft: list[int]) -> None:
    assert LookUp().draft(text, 4) == draft


def test_a_model_drafts_what_it_would_decode_whatever_was_accepted_before() -> None:
    decoder, cache, prompt = prefilled("full")
    drafter, drafting = ModelDrafter(decoder), Drafting(decoder, cache, STEPS, 3, "private", None, list(prompt))
    drafting.drafter = drafter
    list(drafting.passes())
    assert drafting.accepted == (3, 3, 3, 1), "it is the model itself"
    assert drafter.draft(prompt, 3) == one_by_one("full")[1][:3], "an earlier text"


def test_a_model_with_another_vocabulary_cannot_draft() -> None:
    with pytest.raises(Unsupported, match=r"draft: random:tiny-llama has 256 tokens.*has 128; take one that"):
        ModelDrafter.load("random:tiny-llama", 128)


@pytest.mark.parametrize("name", ["infllm", "kivi", "streaming_llm"])
def test_policies_whose_every_step_changes_the_next_are_refused_before_anything_runs(name: str) -> None:
    decoder = plain_decoder(FAMILIES["llama"], make(name))
    with pytest.raises(Unsupported, match=f"draft: policy {name} changes at every step what later tokens attend to"):
        decoder.workload(Cache.empty(4), 2, RunOptions.model_validate({"draft": {"lookup": 4}}))


def test_every_other_policy_and_engine_can() -> None:
    tested = {policy["name"] for _, policy in CELLS.values()}
    able = {name for name in POLICIES if not draft_problem(PlainEngine, make(name))} - {"locret", "attention_gate"}
    assert able == tested - {"streaming_llm"}
    assert "engine 'spu' decodes one token at a time" in draft_problem(SpuEngine, make("full"))
