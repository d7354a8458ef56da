"""Every family of models: transformers' logits at every position, and the same numbers in the private engines."""

from dataclasses import dataclass, replace
from functools import cache as cached
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from parties.decoding.cache import Cache
from parties.decoding.decoder import Decoder
from parties.decoding.prefill import prompt_segments
from parties.decoding.program import run
from parties.decoding.workload import Prefill
from parties.engines.bounds import Watch
from parties.engines.fss.bounds import BOUNDS
from parties.engines.plain import PlainEngine
from parties.engines.watched import WatchedEngine
from parties.errors import Unsupported
from parties.metering.meter import StageMeter
from parties.models import ModelSpec, load_spec, load_weights
from parties.models.folding import fold, folded_shapes
from parties.models.sources import open_source
from parties.policies import POLICIES, make
from tests.helpers.families import FAMILIES, WINDOW
from tests.helpers.policy_cases import QUANTISED, VARIANTS, calm, case, decode, parameters, plain, tokens
from tests.helpers.private_decoding import crypten_party, on_fss, on_plain
from tests.helpers.saved_models import logits, save
from tests.helpers.tiny import random_weights
from tests.helpers.together import together

TOKENS = torch.randint(96, (20,), generator=torch.Generator().manual_seed(3)).tolist()
PROMPT = 12  # longer than the windows, and shorter than the original context of phi3, which the steps exceed
STEPS = 2
FSS, CRYPTEN = 0.06, 0.5


@dataclass(frozen=True)
class Saved:
    """A model of transformers, and what we read of it."""

    model: PreTrainedModel
    source: str
    spec: ModelSpec
    folded: dict[str, Tensor]

    def install(self, engine: PlainEngine) -> PlainEngine:
        run(engine.install(folded_shapes(self.spec), self.folded))
        return engine

    def decoder(self) -> Decoder:
        return Decoder(self.install(PlainEngine(StageMeter())), self.spec, make("full"))


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Any:
    @cached
    def saved(name: str) -> Saved:
        torch.manual_seed(0)
        model = FAMILIES[name]()
        source = str(save(model, tmp_path_factory.mktemp(name)))
        spec = load_spec(source)
        return Saved(model, source, spec, fold(spec, load_weights(source)))

    return saved


@pytest.mark.parametrize("name", FAMILIES)
def test_a_prompt_has_the_logits_of_transformers_at_every_position(name: str, saved: Any) -> None:
    own = saved(name)
    decoder, n = own.decoder(), len(TOKENS)
    found = run(decoder.follow(run(decoder.embed(TOKENS, n, 0)), Cache.empty(own.spec.n_layers)))
    assert (own.spec.capped(found) - logits(own.model, TOKENS)).abs().max() < 1e-4
    assert {key: tuple(tensor.shape) for key, tensor in own.folded.items()} == folded_shapes(own.spec)
    assert ModelSpec.from_json(own.spec.to_json()) == own.spec
    open_source(own.source).check()


@pytest.mark.parametrize("name", FAMILIES)
def test_steps_have_the_logits_of_transformers(name: str, saved: Any) -> None:
    own, theirs = saved(name), []
    held = DynamicCache(config=own.model.config)
    with torch.no_grad():
        own.model(torch.tensor([TOKENS[:PROMPT]]), past_key_values=held)
        for token in TOKENS[PROMPT:]:
            theirs.append(own.model(torch.tensor([[token]]), past_key_values=held).logits[0].double())
    engine = own.install(PlainEngine(StageMeter()))
    found = on_plain(engine, own.spec, make("full"), TOKENS[:PROMPT], TOKENS[PROMPT:])
    assert (own.spec.capped(found) - torch.cat(theirs)).abs().max() < 1e-4


@pytest.mark.parametrize("name", FAMILIES)
def test_fss_decodes_every_family_and_its_numbers_are_within_the_declared_bounds(name: str, saved: Any) -> None:
    own, text = saved(name), (TOKENS[:PROMPT], TOKENS[PROMPT : PROMPT + STEPS])
    engine = own.install(WatchedEngine(StageMeter()))
    engine.watch = Watch(BOUNDS)
    expected = on_plain(engine, own.spec, make("full"), *text)
    assert not engine.watch.first
    assert ("capped" in engine.watch.seen) == bool(own.spec.score_cap)
    assert (on_fss(own.spec, make("full"), own.folded, *text) - expected).abs().max() < FSS


def unwindowed(own: Saved) -> ModelSpec:
    """The model without windows, which only policies that keep all tokens can apply."""
    return replace(own.spec, windows=())


def arrays(parameters: dict[str, Tensor]) -> dict[str, Any]:
    return {name: parameter.numpy() for name, parameter in parameters.items()}


@pytest.mark.slow
def test_crypten_decodes_every_family(saved: Any) -> None:
    text = (TOKENS[:WINDOW], TOKENS[WINDOW : WINDOW + 1])  # CrypTen takes hundreds of rounds per layer
    cases, expected = {}, {}
    for name in FAMILIES:
        own = saved(name)
        cases[name] = (own.spec, make("full"), arrays(own.folded), text)
        expected[name] = on_plain(own.install(PlainEngine(StageMeter())), own.spec, make("full"), *text)
        spec = replace(unwindowed(own), n_layers=1, unrotated=())
        weights, (other,) = random_weights(spec), calm("h2o", spec, prompt=9, steps=1, count=1)
        cases[f"{name} h2o"] = (spec, case("h2o"), arrays(parameters(case("h2o"), spec, weights)), other)
        expected[f"{name} h2o"] = decode(plain(case("h2o"), spec, weights), *other).logits
    results = together(crypten_party, cases)
    for name, wanted in expected.items():
        found = (results["client"][name] + results["server"][name]).double() / 2**16
        assert (found - wanted).abs().max() < CRYPTEN, name


RICH = replace(load_spec("random:tiny-gemma3_text?layers=1"), windows=(), score_cap=20.0, parallel=True)
SELECTED = ("full", "mpcache ahead", "h2o", "quest")


@pytest.mark.slow
@pytest.mark.parametrize("policy", SELECTED)
@pytest.mark.parametrize("name", FAMILIES)
def test_fss_decodes_every_family_under_policies_after_either_prefill(name: str, policy: str, saved: Any) -> None:
    spec = unwindowed(saved(name))
    weights = random_weights(spec)
    installed = parameters(case(policy), spec, weights)
    ((prompt, text),) = calm(policy, spec, prompt=11, steps=2, count=1)
    decoder = plain(case(policy), spec, weights)
    expected, cache = decode(decoder, prompt, text).logits, None
    if (list(FAMILIES).index(name) + SELECTED.index(policy)) % 2:  # every family and every policy with both
        cache = Cache.empty(spec.n_layers)
        run(decoder.prefill(run(decoder.embed(prompt, len(prompt), 0)), cache))
    found = on_fss(spec, case(policy), installed, prompt, text, cache)
    assert (found - expected).abs().max() < FSS


@pytest.mark.slow
@pytest.mark.parametrize("policy", VARIANTS)
def test_a_policy_keeps_as_many_tokens_in_every_family(policy: str, saved: Any) -> None:
    held = []
    for name in FAMILIES:
        spec = replace(unwindowed(saved(name)), n_layers=2)
        decoded = decode(plain(case(policy), spec, random_weights(spec)), *tokens(spec, 11, 3))
        assert decoded.logits.isfinite().all()
        held.append((decoded.held, decoded.left))
    assert all(one == held[0] for one in held)


@pytest.mark.slow
@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_decodes_a_model_with_more_norms_and_caps(name: str) -> None:
    (prompt, text), weights = calm(name, RICH, count=1)[0], random_weights(RICH)
    expected = decode(plain(case(name), RICH, weights), prompt, text).logits
    found = on_fss(RICH, case(name), parameters(case(name), RICH, weights), prompt, text)
    assert (found - expected).abs().max() < (0.5 if name in QUANTISED else FSS)


@pytest.mark.parametrize("chunk", [3, 12])
def test_a_prompt_in_chunks_is_rotated_and_windowed_as_a_whole(chunk: int, saved: Any) -> None:
    for name in ("mistral", "phi3", "gemma3_text"):
        own, whole, parts = saved(name), Cache.empty(2), Cache.empty(2)
        decoder, n = own.decoder(), 18  # beyond the original context of phi3
        run(decoder.prefill(run(decoder.embed(TOKENS[:n], n, 0)), whole))
        for segment in prompt_segments(decoder, parts, TOKENS[:n], Prefill(n, chunk)):
            run(segment())
        for key, value in whole.values().items():
            torch.testing.assert_close(parts.values()[key], value)


def test_a_window_that_a_policy_cannot_apply_is_refused(saved: Any) -> None:
    decoder = Decoder(saved("mistral").decoder().engine, saved("mistral").spec, make("h2o"))
    run(decoder.prefill(run(decoder.embed(TOKENS[:WINDOW], WINDOW, 0)), Cache.empty(2)))
    with pytest.raises(Unsupported, match=r"the latest 5 tokens, and policy h2o does not keep all tokens in order"):
        run(decoder.prefill(run(decoder.embed(TOKENS, len(TOKENS), 0)), Cache.empty(2)))
    with pytest.raises(Unsupported, match="the latest 5 tokens"):  # before the first of the tokens is decoded
        decoder.workload(Cache.empty(2), 4, prefill=[Prefill(2, 2)])
