"""Back end `relay`: a user-space switch on the hub between the hosts, for kernels without netem."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from typing import Any

from netem.backends.request import Paths, Request, direct
from netem.backends.requested_flows import flows_of, unshapable
from netem.errors import NetemError
from netem.flows import Flow
from netem.profile import Link

_ATTEMPTS = 5
_BUSY_MS = 1.0  # an idle machine takes a tenth of that


def obstacle(request: Request) -> str:
    """Why this back end cannot serve the request; empty if it can."""
    if request.site.hub is None:
        return "it needs a hub that all packets pass through, which the hosts of a lab have"
    return unshapable(request)


@contextmanager
def shaped(request: Request) -> Iterator[Paths]:
    """Forward all packets between the hosts through the relay, and those of the parties through lines."""
    flows = flows_of(request)
    started = _relay(request, [replace(flow, link=Link()) for flow in flows], 0.0)
    try:
        compensation_ms = _overhead_ms(request)
        _relay(request, flows, compensation_ms)
        details = {"scheduling": started["scheduling"], "compensation_ms": round(compensation_ms, 4)}
        yield direct(request, pid=started["pid"], **details)
    finally:
        with suppress(NetemError):  # if the hub is gone, there is nothing to restore
            _call(request, "relay_end", {})


def _overhead_ms(request: Request) -> float:
    """One-way delay between two hosts through a relay that adds no delay, in milliseconds.

    It is the same for all pairs, and a busy machine only lengthens it, so the least reading counts. A long one would be
    subtracted from the requested delay, and the links would be too fast however often they were measured afterwards.
    """
    least = math.inf
    for _ in range(_ATTEMPTS):
        for src, dst in request.pairs:
            trip = request.site.call(request.endpoints[src][0], "rtt", {"address": request.probes[dst]})
            least = min(least, trip["rtt_ms"] / 2)
        if least < _BUSY_MS:
            break
    return least


def _relay(request: Request, flows: Sequence[Flow], compensation_ms: float) -> dict[str, Any]:
    return _call(request, "relay", {"flows": [asdict(flow) for flow in flows], "compensation_ms": compensation_ms})


def _call(request: Request, verb: str, given: dict[str, Any]) -> dict[str, Any]:
    assert request.site.hub is not None  # noqa: S101 - checked by obstacle(); for the type checker
    return request.site.call(request.site.hub, verb, given)
