"""Retries against the public rate: what an honest run meets passes, what nobody meets by chance does not."""

import math
import pickle
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from parties.engines.fss import gates
from parties.engines.fss.pivots import Missed
from parties.engines.fss.retries import SIGNIFICANCE, Retries, RetriesImprobable, tail
from parties.engines.fss.simulation import Simulation, share
from parties.engines.fss.source import Source
from parties.program import Program

DECODED, PROMPT = 0.0022, 0.22
"""Failures to be expected of a layer of SmolLM2-135M: of a token, and of a chunk of 113 prompt tokens
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
    assert failures_believed(5.0) == 40, "of bounds that wide nothing can be said"


def test_failures_spread_over_many_segments_are_counted_together() -> None:
    retries = Retries()

    def fail_in_each(segments: int) -> None:
        for _ in range(segments):
            retries.begin()
            retries.risk(1, DECODED)
            retries.failed("norm")

    fail_in_each(2)
    with pytest.raises(
        RetriesImprobable, match=r"failure 3 of the session, in stage norm.*0\.0066 were to be expected"
    ):
        fail_in_each(1)


def test_failures_at_the_public_rate_are_believed() -> None:
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
        gates.truncate(x, 16)  # nothing is cut

    simulation = Simulation()
    simulation.run(program)
    for party in (simulation.client, simulation.server):
        assert party.retries.expected == pytest.approx(30 * 2.0 ** (34 - 63), rel=1e-12)


def test_an_unlucky_sample_is_a_failure_like_others() -> None:
    assert issubclass(Missed, gates.DangerZone)


def test_the_error_survives_the_way_to_another_process() -> None:
    error = RetriesImprobable(3, 0.0044, "one segment", "softmax")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)  # noqa: S301 - our own bytes
    assert "truncation failure 3 of one segment, in stage softmax" in str(error)
    assert "0.0044 were to be expected" in str(error)
