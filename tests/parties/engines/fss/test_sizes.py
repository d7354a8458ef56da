"""Sizes: the largest supported ones are computed correctly, and larger ones are refused by name."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from parties.decoding.cache import Cache
from parties.decoding.decoder import Decoder
from parties.decoding.program import Program, run
from parties.engines.fss.arithmetic import gates
from parties.engines.fss.arithmetic.values import Masked
from parties.engines.fss.compare.signs import negative
from parties.engines.fss.computation import Computation
from parties.engines.fss.cost.cost import predict
from parties.engines.fss.cost.simulation import Simulation, share, value_of
from parties.engines.fss.dealing.plan import Plan
from parties.engines.fss.functions import masked_cache
from parties.engines.fss.functions.norm import normalise, to_norm
from parties.engines.fss.randomness.source import Source
from parties.engines.fss.topk import selection
from parties.engines.limits import LONGEST_ROW
from parties.engines.plain import PlainEngine
from parties.errors import Unsupported
from parties.metering.meter import StageMeter
from parties.options import RunOptions
from parties.policies import Full, make, prompt_scores
from tests.helpers.tiny import GPT2, LLAMA
from tests.parties.engines.fss.functions.test_functions import computed


@pytest.mark.parametrize("centre", [False, True])
def test_norms_of_the_widest_rows(centre: bool) -> None:
    x = torch.randn(3, 1 << 14, generator=torch.Generator().manual_seed(2)).double() * torch.tensor([[0.1], [3], [900]])
    x = x + 0.3
    first, second, _ = computed(lambda v: normalise(to_norm(v, centre=centre), 1e-5), x, 2.0**16)
    kept = x - x.mean(1, keepdim=True) if centre else x
    expected = kept * torch.rsqrt(kept.square().mean(1, keepdim=True) + 1e-5)
    assert (value_of(first, second) - expected).abs().max() < 4e-3


BEYOND: dict[str, tuple[Callable[[Masked], Any], str]] = {
    "rows to be centred": (lambda x: to_norm(x, centre=True), "rows of 16,385 numbers to be centred; at most 16,384"),
    "candidates": (
        lambda x: selection.distinct(x.bounded(2.0**33)),
        r"16,385 candidates with scores below 8.58993e\+09: their keys take 66 bits, and the ring has 63",
    ),
    "a sign": (lambda x: next(negative(x.bounded(2.0**48))), r"signs of numbers below 2\^64"),
    "a truncation": (lambda x: gates.truncate(x.bounded(2.0**47), 8), r"numbers below 2\^63 are truncated"),
}


@pytest.mark.parametrize("what", BEYOND)
def test_sizes_that_do_not_fit_are_refused_by_every_party(what: str) -> None:
    function, text = BEYOND[what]

    def program(source: Source) -> Program[None]:
        x = yield from gates.open_(share(source, torch.zeros(1, (1 << 14) + 1).double(), 1.0))
        with pytest.raises(ValueError, match=text):
            function(x)

    Simulation().run(program)


def planned(position: int, steps: int, spec: Any = LLAMA) -> Plan:
    decoder = Decoder(Computation(Simulation().dealer), spec, Full())
    return Plan.of(decoder.workload(Cache.from_values(spec.n_layers, position, {}), steps), 1)


def test_a_plan_is_refused_if_its_sequence_or_its_model_is_beyond_the_engine() -> None:
    longest = LONGEST_ROW["fss"]
    assert planned(longest - 2, 2).workload.steps == 2
    with pytest.raises(
        Unsupported, match="engine fss: seq_len and new_tokens are 131,073 together, and it takes at most"
    ):
        planned(longest - 2, 3)
    with pytest.raises(Unsupported, match=r"layer norms and a hidden size of 20,480, and it takes at most 16,384"):
        planned(8, 2, replace(GPT2, hidden=20_480))
    with pytest.raises(Unsupported, match="131,104 together"):
        predict(
            replace(LLAMA, max_positions=1 << 18),
            Full(),
            seq_len=131_103,
            new_tokens=2,
            options=RunOptions(prefill="mpc"),
        )


def test_a_cache_that_fills_more_than_a_frame_is_opened_in_several_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = {f"{layer}.{name}": torch.randn(2, 5, 4).double() for layer in range(3) for name in ("k", "v")}

    def program(source: Source) -> Program[dict[str, Masked]]:
        cache = Cache.from_values(3, 5, {name: share(source, value, 64.0) for name, value in numbers.items()})
        for segment in Computation(source).mask_cache(cache):
            yield from segment()
        return cache.values()

    for most, rounds in ((240, 1), (239, 2), (80, 3), (1, 6)):
        monkeypatch.setattr(masked_cache, "OPENED_AT_ONCE", most)
        simulation = Simulation()
        first, second = simulation.run(program)
        assert (simulation.cost.rounds, simulation.cost.online_bytes) == (rounds, 8 * 240)
        for name, value in numbers.items():
            assert (value_of(first[name], second[name]) - value).abs().max() <= 2.0**-17


class Watched(PlainEngine):
    """Records how many scores are passed at once."""

    sizes: tuple[int, ...] = ()

    def softmax(self, scores: Tensor, mask: Tensor | None = None) -> Program[Tensor]:
        self.sizes += (scores.numel(),)
        return super().softmax(scores, mask)


def test_a_prompt_is_rated_in_blocks_of_a_bounded_size(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, q, k = Watched(StageMeter()), torch.randn(4, 60, 8).double(), torch.randn(2, 60, 8).double()
    sums = []
    for most in (prompt_scores.SCORES, 3 * 4 * 60, 1):
        monkeypatch.setattr(prompt_scores, "SCORES", most)
        sums.append(run(prompt_scores.attention_of(engine, q, k, 50, lambda weights: weights.sum(1), rows=60)))
    in_threes = [3 * 4 * end for end in (53, 56, 59)]  # keys after a block's last query are not scored
    assert engine.sizes == (10 * 240, *in_threes, 240, *(4 * end for end in range(51, 61)))
    for part in sums[1:]:
        torch.testing.assert_close(part, sums[0])


@pytest.mark.parametrize("name", ["full", "mpcache", "h2o", "snapkv", "streaming_llm"])
def test_the_longest_prompt_is_counted_from_shapes_alone(name: str) -> None:
    """A real mask of the prompt would take 17 GB, its scores more."""
    spec, longest = replace(LLAMA, n_layers=1, n_heads=2, n_kv_heads=1, max_positions=1 << 18), LONGEST_ROW["fss"]
    long, short = (predict(spec, make(name), seq_len=n - 1, new_tokens=1) for n in (longest, longest // 4))
    assert long.decode.total("client", "online").sent_bytes > 2 * short.decode.total("client", "online").sent_bytes
