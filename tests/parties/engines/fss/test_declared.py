"""Each protocol has its declared cost, in a simulation of all parties, in a dry run on shapes and in the documents."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from parties.decoding.program import Program, parallel, run
from parties.engines.fss.arithmetic import gates
from parties.engines.fss.arithmetic.opening import dealer_openings
from parties.engines.fss.cost.counting import CountingSource
from parties.engines.fss.cost.meta_tensors import MetaTensors
from parties.engines.fss.cost.simulation import Simulation, share
from parties.engines.fss.randomness.source import Source
from parties.metering.meter import StageMeter
from tests.helpers.declared import Count, How, Protocol, of_sizes
from tests.helpers.paths import ROOT

SIZES = (6, 4, 2)
STATED = (64, 64, 8)
HOWS: tuple[How, ...] = ("dcf", "prefix")
NAMES = [protocol.name for protocol in of_sizes(*SIZES)]


def on(source: Source, protocol: Protocol) -> Program[Any]:
    """Opens the inputs and runs the protocol on them; one half is in every range."""
    shared = [share(source, torch.full(shape, 0.5).double(), limit, scale) for shape, scale, limit in protocol.inputs]
    values = yield from parallel(*(gates.open_(value) for value in shared))
    return (yield from protocol.program(*values))


def without_inputs(protocol: Protocol, total: Count) -> Count:
    size = sum(8 * torch.Size(shape).numel() for shape, _, _ in protocol.inputs)
    return total + Count(-1, -size)


def simulated(protocol: Protocol, how: How) -> Count:
    """Runs three parties in lockstep; truncation fails now and then, and then another seed is used."""
    for seed in range(20):
        simulation = Simulation(seed)
        for source in simulation.sources:
            source.comparison = how
        try:
            simulation.run(lambda source: on(source, protocol))
        except gates.TruncationFailure:
            continue
        cost = simulation.cost
        return without_inputs(protocol, Count(cost.rounds, cost.online_bytes, *cost.offline_bytes))
    raise AssertionError("truncation failed twenty times in a row")


def dry_run(protocol: Protocol, how: How) -> Count:
    """Counts the dealer's dry run on shapes."""
    rounds: list[int] = []
    frames: dict[str, list[int]] = {"client": [], "server": []}

    def exchange(wanted: Any) -> Any:
        rounds.append(sum(o.hidden.nbytes for o in wanted))
        return dealer_openings(wanted)

    with MetaTensors():
        source = CountingSource(StageMeter(), frames["client"].append, frames["server"].append)
        source.comparison = how
        run(on(source, protocol), exchange)
        source.flush()
    dealt = (sum(size - 8 for size in sizes) for sizes in frames.values())
    return without_inputs(protocol, Count(len(rounds), sum(rounds), *dealt))


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("name", NAMES)
def test_a_protocol_costs_what_it_declares(name: str, how: How) -> None:
    for sizes in (SIZES, (3, 5, 1)):
        (protocol,) = [p for p in of_sizes(*sizes) if p.name == name]
        assert simulated(protocol, how) == dry_run(protocol, how) == protocol.cost(how)


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 200), st.integers(1, 200), st.integers(1, 20), st.sampled_from(HOWS))
def test_declarations_hold_at_every_size(n: int, d: int, count: int, how: How) -> None:
    for protocol in of_sizes(n, d, min(count, n)):
        assert dry_run(protocol, how) == protocol.cost(how), protocol.name


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("n", [2048, 2049, 4096, 4097, 32_768, 131_072])
def test_exponentials_cost_what_they_declare_for_rows_of_any_length(n: int, how: How) -> None:
    (protocol,) = [p for p in of_sizes(n, 1, 2) if p.name == "exponentials"]
    assert dry_run(protocol, how) == protocol.cost(how)


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("n", [1, 1024, 1025, 4096, 16_384])
def test_counted_exponentials_cost_what_they_declare_for_rows_of_any_length(n: int, how: How) -> None:
    (protocol,) = [p for p in of_sizes(n, 1, 2) if p.name == "exponentials, counted"]
    assert dry_run(protocol, how) == protocol.cost(how)


def row(protocol: Protocol) -> str:
    """The protocol's line in docs/protocols.md."""
    numbers = [getattr(protocol.cost(how), field) for how in HOWS for field in ("rounds", "online", "client", "server")]
    return "| " + " | ".join([protocol.name, *(f"{number:,}" for number in numbers)]) + " |"


def test_the_page_of_protocols_states_these_counts() -> None:
    page = (ROOT / "docs" / "protocols.md").read_text().splitlines()
    expected = [row(protocol) for protocol in of_sizes(*STATED)]
    start = page.index(expected[0]) if expected[0] in page else 0
    assert page[start : start + len(expected)] == expected, "the table should be:\n" + "\n".join(expected)
