"""Shapes predicted before a run are those of the run."""

from pathlib import Path
from typing import Any

import pytest

from parties.decoding.cache import Cache
from parties.decoding.decoder import Decoder
from parties.decoding.program import run
from parties.engines.fss.cost.shapes import installed_shapes, prefilled
from parties.engines.plain import PlainEngine
from parties.heads.folding import head_of
from parties.heads.format import HeadError, save_head
from parties.heads.untrained import random_head
from parties.metering.meter import StageMeter
from parties.models.folding import fold, folded_shapes
from parties.models.spec import ModelSpec
from parties.policies import POLICIES, make
from parties.policies.base import Policy
from tests.helpers.tiny import SPECS, random_tokens, random_weights


def policy_of(name: str, spec: ModelSpec, folder: Path) -> Policy:
    """A policy with its defaults, and with random heads if it needs any."""
    kind = POLICIES[name].trained
    if kind is None:
        return make(name)
    path = folder / "head.safetensors"
    save_head(random_head(kind, spec, random_weights(spec)), path)
    return make(name, head=str(path))


def run_in_full(spec: ModelSpec, policy: Policy, tokens: int) -> tuple[dict[str, Any], Cache]:
    weights, engine, cache = random_weights(spec), PlainEngine(StageMeter()), Cache.empty(spec.n_layers)
    installed = fold(spec, weights) | head_of(policy, spec, weights)
    run(engine.install({}, installed))
    decoder = Decoder(engine, spec, policy)
    run(decoder.prefill(run(decoder.embed(random_tokens(spec, tokens), tokens, 0)), cache))
    return installed, cache


def shapes(named: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in named.items()}


@pytest.mark.parametrize("family", SPECS)
@pytest.mark.parametrize("name", POLICIES)
def test_parameters_and_cache_have_the_shapes_of_a_real_prompt(name: str, family: str, tmp_path: Path) -> None:
    spec = SPECS[family]
    policy = policy_of(name, spec, tmp_path)
    for tokens in (1, 75):
        installed, cache = run_in_full(spec, policy, tokens)
        assert installed_shapes(spec, policy) == shapes(installed)
        blank = prefilled(spec, policy, tokens)
        assert shapes(blank.values()) == shapes(cache.values())
        assert blank.position == cache.position == tokens


def test_without_heads_a_models_own_parameters_are_all() -> None:
    assert installed_shapes(SPECS["llama"], make("full")) == folded_shapes(SPECS["llama"])


def test_heads_that_are_not_there_are_named(tmp_path: Path) -> None:
    policy = make("locret", head=str(tmp_path / "none.safetensors"))
    with pytest.raises(HeadError, match=r"none\.safetensors"):
        prefilled(SPECS["llama"], policy, 10)
