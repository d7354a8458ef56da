"""Retries against the public rate: those of an honest run are accepted, improbable ones are not."""

import importlib
import math
import pickle
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from parties.decoding.program import Program
from parties.engines.fss.arithmetic import gates
from parties.engines.fss.cost.cost import predict
from parties.engines.fss.cost.simulation import Simulation, share
from parties.engines.fss.randomness.retries import SIGNIFICANCE, Retries, RetriesImprobable, tail
from parties.engines.fss.randomness.source import Source
from parties.engines.fss.topk.pivots import PivotsMissed
from parties.options import RunOptions
from parties.policies import Full, MPCache
from parties.policies.base import Policy
from parties.transport.frame import HEADER_BYTES
from tests.helpers.paths import ROOT

DECODED, PROMPT = 0.0022, 0.22
"""Expected failures in a layer of SmolLM2-135M, per token and for a chunk of 113 prompt tokens
(`benchmarks/fss_retries.py`)."""


@given(st.integers(0, 60), st.floats(1e-9, 40))
def test_the_tail_is_that_of_a_poisson_number(count: int, expected: float) -> None:
    direct = math.fsum(math.exp(n * math.log(expected) - expected - math.lgamma(n + 1)) for n in range(count, 400))
    assert tail(count, expected) == pytest.approx(direct, rel=1e-9) or (
        count <= expected and tail(count, expected) == 1
    )


def failures_believed(risk: float, most: int = 40) -> int:
    """How many attempts of one segment may fail, each with this risk."""
    retries = Retries()
    retries.begin()
    for count in range(most):
        retries.risk(1, risk)
        try:
            retries.failed("softmax")
        except RetriesImprobable:
            return count
    return most


def test_a_decoded_layer_has_three_attempts_and_a_layer_of_a_prompt_those_that_it_needs() -> None:
    assert failures_believed(DECODED) == 2
    assert PROMPT ** (failures_believed(PROMPT) + 1) < SIGNIFICANCE, "an honest run is not ended for bad luck"
    assert failures_believed(5.0) == 40, "no test is possible with bounds that wide"


def test_failures_spread_over_many_segments_are_counted_together() -> None:
    retries = Retries()

    def fail_in_each(segments: int) -> None:
        for _ in range(segments):
            retries.begin()
            retries.risk(1, DECODED)
            retries.failed("norm")

    fail_in_each(2)
    with pytest.raises(RetriesImprobable, match=r"failure 3 of the session, in stage norm.*bounds predict 0\.0066"):
        fail_in_each(1)


def test_failures_at_the_public_rate_are_accepted() -> None:
    dice = torch.Generator().manual_seed(3)
    retries, failed = Retries(), 0
    for _ in range(20_000):
        retries.begin()
        while True:
            retries.risk(1, DECODED)
            if float(torch.rand(1, generator=dice)) >= DECODED:
                break
            retries.failed("down")
            failed += 1
    assert failed == retries.count > 20


def test_truncations_count_their_elements_and_bounds() -> None:
    def program(source: Source) -> Program[Any]:
        x = yield from gates.open_(share(source, torch.zeros(30), 2.0**10))
        gates.truncate(x.upscaled(24), 16)
        gates.truncate(x, 16)  # nothing is truncated

    simulation = Simulation()
    simulation.run(program)
    for party in (simulation.client, simulation.server, simulation.dealer):
        assert party.retries.expected == pytest.approx(30 * 2.0 ** (34 - 63), rel=1e-12)


@pytest.mark.parametrize("policy", [Full(), MPCache()])
def test_the_costs_are_counted_on_the_programs_that_a_cell_runs(
    policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rounds and offline bytes of `benchmarks/fss_retries.py` equal those of the cost model, and so those of a run."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    script = importlib.import_module("fss_retries")
    spec = replace(script.SMOLLM2, n_layers=2, vocab=300)
    monkeypatch.setattr(script, "SMOLLM2", spec)
    for prompt in (False, True):
        found = script.segments(policy, 40, prompt=prompt)
        options = RunOptions(prefill="mpc" if prompt else "shared")
        prediction = predict(spec, policy, seq_len=41 if prompt else 40, new_tokens=1, options=options)
        traffic = prediction.prefill if prompt else prediction.decode
        assert traffic is not None
        token_share = 0.0 if prompt else 0.5  # the server's share of the token, one way
        assert sum(s.rounds for s in found) == traffic.total("client", "online").rounds - token_share
        sent = sum(traffic.total(role, "offline").received_bytes for role in ("client", "server"))
        headers = sum(traffic.total(role, "offline").messages for role in ("client", "server")) * HEADER_BYTES
        assert sum(s.offline for s in found) == sent - headers
        assert all(0 <= s.spare <= s.offline + 16 for s in found)


def test_pivots_that_miss_are_a_failure_like_others() -> None:
    assert issubclass(PivotsMissed, gates.TruncationFailure)


def test_the_error_survives_pickling() -> None:
    error = RetriesImprobable(3, 0.0044, "one segment", "softmax")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)  # noqa: S301 - our own bytes
    assert "truncation failure 3 of one segment, in stage softmax" in str(error)
    assert "bounds predict 0.0044" in str(error)
