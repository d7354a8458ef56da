"""The delay of the relay itself, which the requested delays include, on a busy machine."""

from collections.abc import Iterator, Mapping
from itertools import chain, repeat
from typing import Any

import pytest

from netem import preset
from netem.backends import relay
from netem.backends.request import Request

ENDPOINTS = {"client": ("192.0.2.1", 7000), "server": ("192.0.2.2", 7000)}


class Site:
    """Hosts whose round trips are given, one reading after the other."""

    hub = "hub"

    def __init__(self, readings: Iterator[float]) -> None:
        self._readings = readings
        self.compensation_ms: list[float] = []

    def call(self, host: str, verb: str, given: Mapping[str, Any]) -> dict[str, Any]:
        if verb == "rtt":
            return {"rtt_ms": next(self._readings)}
        if verb == "relay":
            self.compensation_ms.append(given["compensation_ms"])
        return {"scheduling": "other", "pid": 1}

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("readings", "expected_ms"),
    [
        (repeat(0.2), 0.1),
        (chain([40.0], repeat(0.2)), 0.1),  # one pair was disturbed
        (chain([40.0, 36.0, 38.0, 0.3], repeat(50.0)), 0.15),  # both were
        (chain([8.0, 6.0], repeat(7.0)), 3.0),  # the machine is as slow as that
    ],
)
def test_disturbed_readings_are_not_subtracted_from_the_delay(readings: Iterator[float], expected_ms: float) -> None:
    site = Site(readings)
    request = Request(preset("wan").named(tuple(ENDPOINTS)), ENDPOINTS, ENDPOINTS, site, "test", 60.0)
    with relay.shaped(request) as paths:
        assert paths.details["compensation_ms"] == pytest.approx(expected_ms)
    assert site.compensation_ms == [0.0, pytest.approx(expected_ms)]
