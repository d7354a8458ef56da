"""A prompt read once and compressed by many policies gives the results of each policy alone."""

from functools import partial
from pathlib import Path

import pytest
import torch

from orchestrator.quality.fidelity import compare_logits, fidelity
from orchestrator.quality.reader import Reader
from parties.decoding.cache import Cache
from parties.decoding.program import run
from parties.heads import save_head
from parties.heads.format import Kind
from parties.heads.untrained import random_head
from parties.models import load_spec, load_weights
from parties.policies import POLICIES, make
from parties.policies.base import Policy

MODEL = "random:llama?layers=2&hidden=32&heads=4&kv_heads=2&intermediate=48&vocab=64&positions=256"


@pytest.fixture(scope="module")
def reader() -> Reader:
    return Reader(MODEL)


def text(length: int) -> list[int]:
    return torch.randint(64, (length,), generator=torch.Generator().manual_seed(length)).tolist()


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    spec, weights, folder = load_spec(MODEL), load_weights(MODEL), tmp_path_factory.mktemp("heads")
    kinds: tuple[Kind, ...] = ("locret", "attention_gate")
    paths: dict[str, Path] = {kind: folder / f"{kind}.safetensors" for kind in kinds}
    for kind in kinds:
        save_head(random_head(kind, spec, weights), paths[kind])
    return paths


@pytest.fixture(params=POLICIES)
def policy(request: pytest.FixtureRequest, heads: dict[str, Path]) -> Policy:
    kind = POLICIES[request.param].trained
    return make(request.param, **({"head": str(heads[kind])} if kind else {}))


def test_a_shared_prompt_is_compressed_as_by_the_policy_alone(reader: Reader, policy: Policy) -> None:
    tokens = text(100)
    shared = reader.compress(reader.read(tokens), policy)
    alone, decoder = Cache.empty(reader.spec.n_layers), reader.decoder(policy)
    with torch.no_grad():
        run(decoder.prefill(run(decoder.embed(tokens, len(tokens), 0)), alone))
    for token in text(5):
        torch.testing.assert_close(
            reader.step(policy, shared, token), reader.step(policy, alone, token), rtol=1e-3, atol=1e-3
        )


def test_compressing_leaves_the_prompt_as_it_was(reader: Reader, policy: Policy) -> None:
    prefix = reader.read(text(80))
    before = [here.k.clone() for here in prefix.cache.layers]
    cache = reader.compress(prefix, policy)
    for token in text(3):
        reader.step(policy, cache, token)
    assert all(torch.equal(here.k, k) for here, k in zip(prefix.cache.layers, before, strict=True))
    assert prefix.cache.tokens == (80, 80)


def test_the_full_cache_is_equal_to_itself(reader: Reader) -> None:
    tokens = text(90)
    prefix, continuation = reader.read(tokens[:79]), tokens[79:]
    step = partial(reader.step, make("full"), reader.compress(prefix, make("full")))
    found = fidelity(step, reader.reference(prefix, continuation[:-1]), continuation)
    assert found.kl < 1e-6
    assert found.agreement == 1
    assert found.nll == pytest.approx(found.reference_nll, abs=1e-4)


def test_dropping_nearly_everything_lowers_the_scores(reader: Reader) -> None:
    tokens = text(90)
    prefix, continuation = reader.read(tokens[:79]), tokens[79:]
    reference = reader.reference(prefix, continuation[:-1])
    policy = make("random", compression_ratio=0.95)
    found = fidelity(partial(reader.step, policy, reader.compress(prefix, policy)), reference, continuation)
    assert found.kl > 1e-3


def test_measures_are_those_of_their_formulas() -> None:
    reference = torch.tensor([[0.5, 0.5], [0.9, 0.1]], dtype=torch.float64).log()
    ours = torch.tensor([[0.25, 0.75], [0.8, 0.2]], dtype=torch.float64).log()
    found = compare_logits(ours, reference, torch.tensor([1, 0]))
    first = 0.5 * torch.tensor(2.0).log() + 0.5 * torch.tensor(0.5 / 0.75).log()
    second = 0.9 * torch.tensor(0.9 / 0.8).log() + 0.1 * torch.tensor(0.1 / 0.2).log()
    assert found.kl == pytest.approx(float((first + second) / 2), abs=1e-6)
    assert found.nll == pytest.approx(-(torch.tensor(0.75).log() + torch.tensor(0.8).log()).item() / 2, abs=1e-6)
    assert found.agreement == 0.5  # the first row's tie goes to token 0, ours gives 1
