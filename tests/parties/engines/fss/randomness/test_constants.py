"""Hosts whose public constants differ in the last place of one number stop with an error before a wrong result."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from parties.decoding.program import Program
from parties.engines.bounds import rare
from parties.engines.fss import bounds
from parties.engines.fss.arithmetic.gates import open_
from parties.engines.fss.cost.simulation import Simulation, share
from parties.engines.fss.functions import activation, softmax
from parties.engines.fss.functions.tables import Tables
from parties.engines.fss.randomness import seeds
from parties.engines.fss.randomness.constants import Constants, ConstantsDiffer
from parties.engines.fss.randomness.party_sources import ComputingSource
from parties.engines.fss.randomness.source import Source
from parties.errors import PeerLost
from parties.metering.meter import StageMeter
from parties.transport.mesh import Mesh
from tests.helpers.together import together
from tests.parties.engines.fss.test_decoding import POLICIES, decode, prefilled


def other_cosine() -> None:
    """One unit in the last of 16 fraction bits, at one place."""
    honest = torch.Tensor.cos

    def cos(angles: torch.Tensor) -> torch.Tensor:
        cosines = honest(angles)
        cosines[0, 3] += 2.0**-16
        return cosines

    torch.Tensor.cos = cos  # type: ignore[method-assign,assignment]


def other_table() -> None:
    tables = activation._function("silu", activation._GATE_REST, activation._GATE_SCALE, 64.0).tables
    tables.values[0, 0, 700] += 1


def other_bound() -> None:
    bounds.BOUNDS = {**bounds.BOUNDS, "o": rare("output of o", 2.0**10, 32)}
    bounds.declared.cache_clear()


def other_permutation() -> None:
    """The dealer sends the server another key than the client."""
    honest = seeds.DealerCoinToss.seed

    def seed(toss: seeds.DealerCoinToss, key: bytes) -> bytes:
        return honest(toss, key[::-1] if toss._link.peer == "server" else key)

    seeds.DealerCoinToss.seed = seed  # type: ignore[method-assign,assignment]


CHANGES: dict[str, tuple[str, Callable[[], None]]] = {
    "a cosine": ("client", other_cosine),
    "a table": ("server", other_table),
    "a bound": ("client", other_bound),
    "the permutation": ("dealer", other_permutation),
}


def party(role: str, mesh: Mesh, meter: StageMeter, changed: str, parts: Any, token: int) -> str:
    where, change = CHANGES[changed]
    if role == where:
        change()
    try:
        decode(role, mesh, meter, "llama", POLICIES["full"], parts.get(role, {}), token)
    except (ConstantsDiffer, PeerLost) as error:
        return str(error)
    return "a result"


@pytest.mark.parametrize("changed", CHANGES)
def test_a_party_whose_constants_differ_is_detected_before_there_is_a_result(changed: str) -> None:
    _, _, parts, token = prefilled("llama", POLICIES["full"])
    results = together(party, changed, parts, token)
    named = [text for text in results.values() if "computes with other public constants than this party" in text]
    assert named, results
    assert all("lost the connection" in text for text in results.values() if text not in named)


def digest_of(program: Callable[[Source], Program[Any]], seed: int = 1) -> bytes:
    simulation = Simulation(seed)
    simulation.run(program)
    digests = [s.constants.digest() for s in simulation.sources if isinstance(s, ComputingSource)]
    assert digests[0] == digests[1]
    return digests[0]


def softmax_of(scores: torch.Tensor, mask: torch.Tensor) -> Callable[[Source], Program[Any]]:
    def program(source: Source) -> Program[Any]:
        opened = yield from open_(share(source, scores, 64.0))
        return (yield from softmax.exponentials(opened, mask))

    return program


def test_the_digest_depends_on_masks_and_not_on_secrets() -> None:
    mask = torch.ones(2, 6, dtype=torch.bool)
    other = mask.clone()
    other[1, 5] = False
    scores = torch.randn(2, 6, generator=torch.Generator().manual_seed(1))
    assert digest_of(softmax_of(scores, mask)) == digest_of(softmax_of(-scores, mask), seed=2)
    assert digest_of(softmax_of(scores, mask)) != digest_of(softmax_of(scores, other))


def test_a_table_is_named_by_its_values() -> None:
    values = np.arange(64, dtype=np.int64).reshape(1, 1, 64)
    changed = values.copy()
    changed[0, 0, 9] += 1
    assert Tables(values).digest == Tables(values.copy()).digest != Tables(changed).digest


def test_constants_are_named_in_their_order() -> None:
    found = []
    for order in ((1, 23), (12, 3), (23, 1)):
        constants = Constants()
        for number in order:
            constants.note(number)
        found.append(constants.digest())
    assert len(set(found)) == 3
