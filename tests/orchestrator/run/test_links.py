"""When links are accepted, and how a record describes them."""

import itertools
from collections.abc import Callable, Mapping
from types import SimpleNamespace

import pytest

from netem import LinkReading, Measured, Pair
from orchestrator.records.record import Status
from orchestrator.run import links as links_module
from orchestrator.run.failures import CellFailure
from orchestrator.run.links import LinkMeasurements, Links

GOOD, BAD, NONE = 4.0, 9.0, -1.0


class Scripted:
    """Links whose round-trip times are given in advance, one measurement after the other."""

    backend = "scripted"

    def __init__(self, *rtts: float) -> None:
        self.rtts = list(rtts)
        self.known: Mapping[Pair, Measured] = {}

    def recent(self) -> Mapping[Pair, Measured]:
        return self.known

    def measure(self, watch: Callable[[str], None]) -> Mapping[Pair, Measured]:
        watch("measuring the link client>server")
        rtt = self.rtts.pop(0)
        return {("client", "server"): Measured(rtt, 5.0, 50, 100.0, "cubic")} if rtt != NONE else {}

    def deviations(self, measured: Mapping[Pair, Measured]) -> tuple[str, ...]:
        return tuple("client>server: RTT is off" for got in measured.values() if got.rtt_ms == BAD)

    def readings(self, *measured: Mapping[Pair, Measured] | None) -> tuple[LinkReading, ...]:
        before, after = ({"rtt_ms": m["client", "server"].rtt_ms} if m else None for m in measured)
        return (LinkReading(src="client", dst="server", measured_before=before, measured_after=after),)


def rtt(survey: LinkMeasurements, when: str) -> float | None:
    (reading,) = survey.readings
    measured = getattr(reading, when)
    return None if measured is None else measured["rtt_ms"]


def test_good_links_are_measured_once_before_and_once_after() -> None:
    links = Scripted(GOOD, GOOD)
    survey = LinkMeasurements(links)  # type: ignore[arg-type]
    survey.before()
    assert (rtt(survey, "measured_before"), rtt(survey, "measured_after")) == (GOOD, None)
    survey.after()
    assert rtt(survey, "measured_after") == GOOD
    assert not links.rtts
    assert survey.backend == "scripted"


def test_the_readings_after_a_cell_are_those_before_the_next_one_if_it_follows_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken = itertools.count(1.0)
    shaped = SimpleNamespace(
        backend="none", details={}, dial={}, profile=SimpleNamespace(shaped=False), deviations=lambda _: (),
        measure=lambda **_: {("client", "server"): Measured(next(taken), 5.0, 50, 100.0, "cubic")},
        readings=Scripted().readings,
    )  # fmt: skip
    links = Links(shaped, {})  # type: ignore[arg-type]
    first, second, later = (LinkMeasurements(links) for _ in range(3))
    first.before()
    first.after()
    second.before()
    assert (rtt(first, "measured_before"), rtt(first, "measured_after")) == (1.0, 2.0)
    assert rtt(second, "measured_before") == 2.0
    monkeypatch.setattr(links_module, "_FRESH_S", 0.0)
    later.before()
    assert rtt(later, "measured_before") == 3.0


@pytest.mark.parametrize(("when", "status"), [("before", Status.SHAPING_FAILED), ("after", Status.SHAPING_DRIFTED)])
def test_links_that_stay_wrong_end_the_cell_and_are_on_record(when: str, status: Status) -> None:
    survey = LinkMeasurements(Scripted(*([GOOD] if when == "after" else []), BAD))  # type: ignore[arg-type]
    if when == "after":
        survey.before()
    with pytest.raises(CellFailure, match="client>server: RTT is off") as failure:
        getattr(survey, when)()
    assert failure.value.status is status
    assert rtt(survey, f"measured_{when}") == BAD


def test_without_links_there_is_no_message() -> None:
    survey = LinkMeasurements()
    survey.before()
    survey.after()
    assert survey.readings == ()
    assert survey.backend == "none"


def test_a_link_that_could_not_be_measured_is_a_warning_and_ends_nothing() -> None:
    survey = LinkMeasurements(Scripted(NONE, GOOD))  # type: ignore[arg-type]
    survey.before()
    survey.after()
    assert (rtt(survey, "measured_before"), rtt(survey, "measured_after")) == (None, GOOD)
    assert survey.warnings == ("the link client>server could not be measured before the cell; nothing is asked of it",)


def test_an_exception_of_the_watcher_ends_the_measurement() -> None:
    def interrupt(what: str) -> None:
        raise InterruptedError(what)

    with pytest.raises(InterruptedError, match="measuring the link client>server"):
        LinkMeasurements(Scripted(GOOD), interrupt).before()  # type: ignore[arg-type]
