"""Truncation failures in segments that are replayed, while the dealer is tokens ahead."""

from typing import Any

import pytest

from parties.engines.fss.arithmetic.gates import TruncationFailure
from parties.engines.fss.replay.parts import Parts
from parties.metering.meter import StageMeter
from parties.options import RunOptions
from parties.policies import make
from parties.policies.base import Policy
from parties.transport.mesh import Mesh
from tests.helpers.together import together
from tests.parties.engines.fss import test_decoding as decoding
from tests.parties.engines.fss.replay import test_replay

WHO = ("client", "server", "dealer")
OBSERVING = {name: make(name, compression_ratio=0.5) for name in ("h2o", "tova", "lazy_eviction", "mikv")}
"""Policies that see the weights of spare rows; none evicts within the test, so that all segments are replayed."""


def failing(role: str, mesh: Mesh, meter: StageMeter, number: int, policy: Policy, *given: Any) -> Any:
    """Decodes; at both parties the replay of this number has a failure in its last check."""
    run, count = Parts.run, 0

    def replayed(*arguments: Any) -> None:
        nonlocal count
        run(*arguments)
        count += role != "dealer"
        if count == number:
            raise TruncationFailure("a truncation that a test chose")

    setattr(Parts, "run", replayed)  # noqa: B010
    shares, token, options = given
    return test_replay.party(role, mesh, meter, WHO, 0, "llama", policy, shares, token, (), options)


@pytest.mark.parametrize("offline", ["stored", "streamed"])
@pytest.mark.parametrize("number", [2, 9, pytest.param(22, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "policy", ["h2o", *(pytest.param(name, marks=pytest.mark.slow) for name in OBSERVING if name != "h2o")]
)
def test_a_dealer_that_deals_again_has_the_spare_rows_that_the_parties_have(
    policy: str, number: int, offline: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own hold masks of later tokens by then, and the weights of spare rows reach the policy's state."""
    monkeypatch.setattr(decoding, "STEPS", test_replay.STEPS)
    decoder, cache, shares, token = decoding.prefilled("llama", OBSERVING[policy], 6)
    results = together(failing, number, OBSERVING[policy], shares, token, RunOptions(offline=offline))
    decoding.check({role: result[:4] for role, result in results.items()}, decoder, cache, token)
    replayed, _, refused, repeats = results["client"][-1]
    assert replayed > number
    assert repeats > 0
    assert not refused
