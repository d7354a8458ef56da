"""Sequences that decode side by side: the results of each alone, in the rounds of one."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from parties.decoding.batch import Batch
from parties.decoding.cache import Cache
from parties.decoding.decoder import Decoder
from parties.decoding.program import Program, run
from parties.decoding.steps import fold
from parties.engines.fss.arithmetic.gates import TruncationFailure
from parties.engines.fss.computation import Computation
from parties.engines.fss.cost.cost import predict
from parties.engines.fss.cost.simulation import Simulation, value_of
from parties.engines.fss.randomness.source import CLIENT, SERVER, Source
from parties.options import Comparison, RunOptions
from parties.policies import Full
from tests.helpers.policy_cases import QUANTISED, SPEC, VARIANTS, Text, calm, case, decode, parameters, plain, tokens
from tests.helpers.tiny import FAMILIES, plain_decoder, random_tokens
from tests.parties.engines.fss.arithmetic.test_embedding import table_of

QUICK = ["full", "mpcache", "mpcache ahead"]
ROUNDING = 0.06


def decoding(decoder: Decoder, texts: list[Text], *, owns: bool) -> Program[tuple[list[Any], list[int], Any]]:
    """Prefill of each sequence, then decoding of all: logits of each step, cached tokens, and the last choices."""
    batch = Batch([Cache.empty(decoder.spec.n_layers) for _ in texts])
    for cache, (prompt, _) in zip(batch.sequences, texts, strict=True):
        x = yield from decoder.embed(prompt if owns else None, len(prompt), 0)
        yield from decoder.prefill(x, cache)
    fold(decoder, batch)
    logits = []
    for together in zip(*(text for _, text in texts), strict=True):
        x = yield from decoder.embed_next(list(together) if owns else None, batch)
        logits.append((yield from decoder.step(x, batch)))
    held = [layer.tokens for cache in batch.sequences for _ in range(cache.lanes) for layer in cache.layers]
    return logits, held, (yield from decoder.engine.argmax(logits[-1]))


def test_a_folded_cache_replaces_those_of_its_sequences() -> None:
    decoder = plain(Full())
    each = [Cache.empty(SPEC.n_layers) for _ in range(3)]
    for cache, (prompt, _) in zip(each, of_lengths(17, 17, 14), strict=True):
        run(decoder.prefill(run(decoder.embed(prompt, len(prompt), 0)), cache))
    fold(decoder, batch := Batch(each))
    assert [cache.lanes for cache in batch.sequences] == [2, 1]
    assert [bool(cache.values()) for cache in each] == [False, False, True]


def of_lengths(*lengths: int) -> list[Text]:
    return [tokens(prompt=length, seed=seed) for seed, length in enumerate(lengths)]


@pytest.mark.parametrize("lengths", [(17, 14, 21), (19, 17, 17)], ids=str)
@pytest.mark.parametrize("name", VARIANTS)
def test_each_sequence_decodes_as_it_does_alone(name: str, lengths: tuple[int, ...]) -> None:
    decoder, texts = plain(case(name)), of_lengths(*lengths)
    logits, held, _ = run(decoding(decoder, texts, owns=True))
    alone = [decode(decoder, *text) for text in texts]
    for index, expected in enumerate(alone):
        torch.testing.assert_close(torch.stack([step[index] for step in logits]), expected.logits)
    assert held == [tokens for expected in alone for tokens in expected.left]


@pytest.mark.parametrize("family", FAMILIES)
def test_sequences_have_positions_and_windows_of_their_own(family: str) -> None:
    spec = FAMILIES[family]
    decoder = plain_decoder(spec, Full())
    texts = [(random_tokens(spec, length, length), random_tokens(spec, 3, length + 1)) for length in (5, 12, 9)]
    logits, _, chosen = run(decoding(decoder, texts, owns=True))
    for index, text in enumerate(texts):
        torch.testing.assert_close(torch.stack([step[index] for step in logits]), decode(decoder, *text).logits)
    assert chosen == logits[-1].argmax(1).tolist()


def at_source(name: str, texts: list[Text]) -> Callable[[Source], Program[tuple[list[Any], list[int], Any]]]:
    policy = case(name)
    installed = parameters(policy)
    shapes = {key: tuple(w.shape) for key, w in installed.items()}

    def program(source: Source) -> Program[tuple[list[Any], list[int], Any]]:
        engine = Computation(source)
        engine.matrices = {key: table_of(source, w) for key, w in installed.items() if w.dim() == 2}
        yield from engine.install(shapes, installed if source.rank == SERVER else None)
        return (yield from decoding(Decoder(engine, SPEC, policy), texts, owns=source.rank == CLIENT))

    return program


def simulated(name: str, texts: list[Text]) -> tuple[Tensor, list[int]]:
    """Logits, [sequences, steps, vocab], and cached tokens in the end."""
    for seed in range(20):
        try:
            first, second = Simulation(seed).run(at_source(name, texts))
        except TruncationFailure:
            continue
        steps = [value_of(a, b) for a, b in zip(first[0], second[0], strict=True)]
        return torch.stack(steps, 1), first[1]
    raise AssertionError("truncation cannot fail twenty times in a row")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in VARIANTS]
)
def test_fss_decodes_a_batch_like_the_plain_engine(name: str) -> None:
    texts = [*calm(name), *calm(name, prompt=14, count=1)]
    found, held = simulated(name, texts)
    alone = [decode(plain(case(name)), *text) for text in texts]
    for logits, expected in zip(found, alone, strict=True):
        assert (logits - expected.logits).abs().max() < (0.5 if name in QUANTISED else ROUNDING)
    assert held == [tokens for expected in alone for tokens in expected.left]


@pytest.mark.parametrize("comparison", ["dcf", "prefix"])
@pytest.mark.parametrize("name", QUICK)
def test_a_batch_takes_the_rounds_of_one_sequence(name: str, comparison: Comparison) -> None:
    one, four = (
        predict(SPEC, case(name), seq_len=40, new_tokens=2, options=RunOptions(comparison=comparison), batch=batch)
        for batch in (1, 4)
    )
    for role in ("client", "server"):
        alone, together = (cost.decode.total(role, "online") for cost in (one, four))
        assert together.rounds == alone.rounds
        assert alone.sent_bytes < together.sent_bytes <= 4 * alone.sent_bytes
