"""TTFT, TPOT, ITL, tokens per second and acceptance, against their definitions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parties.metering.token_times import percentile, token_times


@given(st.lists(st.floats(0, 1e3), min_size=1, max_size=30), st.floats(0, 1))
def test_a_percentile_is_numpys(values: list[float], share: float) -> None:
    assert percentile(values, share) == pytest.approx(float(np.quantile(values, share)))


def test_a_single_token_has_no_latency_to_the_next() -> None:
    found = token_times([4.0], tokens=1)
    assert found is not None
    assert (found.ttft_seconds, found.tpot_seconds, found.itl_p50_seconds, found.acceptance) == (4.0, 4.0, None, None)
    assert token_times([], tokens=0) is None


def test_a_batch_shares_its_passes_and_a_draft_fills_them() -> None:
    found = token_times([2.0, 1.0, 1.0], tokens=8, sequences=16, drafted=12, accepted=6)
    assert found is not None
    assert (found.tokens_per_second, found.tpot_seconds, found.acceptance) == (32.0, 0.5, 0.5)
    assert (found.itl_p50_seconds, found.itl_p99_seconds) == (1.0, 1.0)
