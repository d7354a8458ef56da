"""A prompt in blocks of queries, and from known inputs, gives every policy what the whole score matrix gives it."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from parties.decoding.decoder import Decoder
from parties.engines import plain as engine
from parties.engines.bounds import Bound, Watch
from parties.engines.fss import bounds as fss
from parties.engines.plain import QUERIES, PlainEngine
from parties.engines.watched import WatchedEngine
from parties.policies import Full
from tests.helpers.naive_prefill import NaiveEngine, followed, prefilled
from tests.helpers.policy_cases import SPEC, VARIANTS, case, plain, tokens
from tests.helpers.tiny import GPT2, SPECS

PROMPT, TEXT = tokens(prompt=2 * QUERIES + 9, steps=5)
close = partial(torch.testing.assert_close, rtol=0.0, atol=1e-9)


def seen(decoder: Decoder, bounds: Mapping[str, Bound]) -> Watch:
    """A watch on the decoder's engine."""
    vars(decoder.engine)["watch"] = watch = Watch(bounds)
    return watch


def check(fast: Decoder, naive: Decoder, inputs: list[Tensor] | None, bounds: Mapping[str, Bound]) -> None:
    """The same tokens stay, with the same state; the same numbers are watched, and the logits are the same."""
    watches = seen(fast, bounds), seen(naive, bounds)
    found, expected = prefilled(fast, PROMPT, inputs), prefilled(naive, PROMPT)
    assert found.tokens == expected.tokens
    close(found.values(), expected.values())
    close(*(watch.seen for watch in watches))
    close(followed(fast, found, TEXT), followed(naive, expected, TEXT))


def bounds(*only: str) -> dict[str, Bound]:
    """The declared ranges of `fss`, all or some."""
    return {key: bound for key, bound in fss.BOUNDS.items() if not only or key in only}


@pytest.mark.parametrize("name", VARIANTS)
def test_blocks_of_queries_give_what_the_whole_matrix_gives_and_show_a_watch_the_same_numbers(name: str) -> None:
    check(plain(case(name), kind=WatchedEngine), plain(case(name), kind=NaiveEngine), None, bounds())


@pytest.mark.parametrize("name", [name for name in VARIANTS if case(name).chunk is None])
def test_a_prompt_whose_attention_another_policy_computed_gives_the_same(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs: list[Tensor] = []
    prefilled(plain(Full()), PROMPT, inputs)
    before = [rows.clone() for rows in inputs]
    fast, naive = (plain(case(name), kind=kind) for kind in (WatchedEngine, NaiveEngine))
    check(fast, naive, inputs, bounds("declared"))
    assert len(inputs) == SPEC.n_layers
    assert all(torch.equal(rows, old) for rows, old in zip(inputs, before, strict=True))
    monkeypatch.setattr(PlainEngine, "attend", None)
    prefilled(plain(case(name)), PROMPT, inputs)


@pytest.mark.parametrize("name", [name for name in VARIANTS if case(name).chunk is None])
def test_every_policy_without_chunks_leaves_what_the_next_may_use(name: str) -> None:
    own: list[Tensor] = []
    full: list[Tensor] = []
    prefilled(plain(case(name)), PROMPT, own)
    prefilled(plain(Full()), PROMPT, full)
    assert all(torch.equal(a, b) for a, b in zip(own, full, strict=True))


def test_a_family_with_centred_rows_uses_known_inputs_too() -> None:
    inputs: list[Tensor] = []
    first = prefilled(plain(Full(), GPT2), PROMPT, inputs)
    second = prefilled(plain(Full(), SPECS["gpt2"]), PROMPT, inputs)
    torch.testing.assert_close(second.values(), first.values(), rtol=0.0, atol=0.0)


@pytest.mark.parametrize("family", SPECS)
def test_fused_attention_gives_what_the_whole_matrix_gives(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "FUSED_QUERIES", 50)
    found, expected = (
        prefilled(plain(Full(), SPECS[family], kind=kind), PROMPT) for kind in (PlainEngine, NaiveEngine)
    )
    close(found.values(), expected.values())


@pytest.mark.parametrize("family", SPECS)
def test_the_referees_fused_attention_rounds_far_below_an_engine_on_shares(family: str) -> None:
    referee, exact = (
        prefilled(plain(Full(), SPECS[family], kind=kind), PROMPT) for kind in (WatchedEngine, NaiveEngine)
    )
    torch.testing.assert_close(referee.values(), exact.values(), rtol=0.0, atol=2e-5)
    assert any(not torch.equal(referee.values()[name], value) for name, value in exact.values().items())


def test_no_score_matrix_of_all_queries_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    rows: dict[str, list[int]] = {"softmax": [], "scaled_dot_product_attention": []}

    def counted(module: Any, name: str, queries: int) -> None:
        original = getattr(module, name)

        def call(*arguments: Any, **options: Any) -> Any:
            rows[name].append(arguments[queries].shape[-2])
            return original(*arguments, **options)

        monkeypatch.setattr(module, name, call)

    counted(PlainEngine, "softmax", 1)
    counted(functional, "scaled_dot_product_attention", 0)
    monkeypatch.setattr(engine, "FUSED_QUERIES", 50)
    watched = plain(Full(), kind=WatchedEngine)
    seen(watched, bounds())
    for decoder in (plain(Full()), watched):
        prefilled(decoder, PROMPT)
    for blocks, most in zip(rows.values(), (QUERIES, 50), strict=True):
        assert max(blocks) <= most
        assert sum(blocks) == len(PROMPT) * (SPEC.n_layers - 1)
