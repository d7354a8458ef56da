"""Back end `tc`: the traffic control of the kernel on the egress of every host."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from typing import Any

from netem.backends.request import Paths, Request, direct
from netem.backends.requested_flows import flows_of, unshapable
from netem.errors import NetemError
from netem.flows import Flow
from netem.profile import Link
from netem.tc_plan import needs_netem


def obstacle(request: Request) -> str:
    """Why this back end cannot serve the request; empty if it can."""
    if reason := unshapable(request):
        return reason
    wanted = "delay" if any(needs_netem(request.link(pair)) for pair in request.pairs) else "rate"
    for host, _ in request.endpoints.values():
        if reason := request.site.call(host, "capability", {})[wanted]:
            return f"{host}: {reason}"
    return ""


@contextmanager
def shaped(request: Request) -> Iterator[Paths]:
    """Shape on each host the packets to the party on each other host."""
    overhead_ms = {pair: _rtt_ms(request, *pair) / 2 for pair in request.pairs}
    flows = [_compensated(flow, request, overhead_ms) for flow in flows_of(request)]
    leases: dict[str, str] = {}
    try:
        for host, _ in request.endpoints.values():
            if mine := [flow for flow in flows if flow.src == host]:
                leases[host] = _apply(request, host, mine)
        yield direct(request, leases=leases, compensation_ms=round(max(overhead_ms.values()), 4))
    finally:
        for host, lease in leases.items():
            with suppress(NetemError):  # the rules of a vanished host are gone, or its janitor removes them
                request.site.call(host, "tc_remove", {"lease": lease})


def _apply(request: Request, host: str, flows: Sequence[Flow]) -> str:
    given: dict[str, Any] = {"run": request.run, "ttl_s": request.ttl_s, "replace": request.replace}
    answer = request.site.call(host, "tc_apply", {"flows": [asdict(flow) for flow in flows], **given})
    return str(answer["lease"])


def _rtt_ms(request: Request, src: str, dst: str) -> float:
    """Round-trip time between two unshaped hosts, in milliseconds; the requested delay includes it."""
    answer = request.site.call(request.endpoints[src][0], "rtt", {"address": request.probes[dst]})
    return float(answer["rtt_ms"])


def _compensated(flow: Flow, request: Request, overhead_ms: dict[tuple[str, str], float]) -> Flow:
    hosts = {name: host for name, (host, _) in request.endpoints.items()}
    pair = next(pair for pair in request.pairs if (hosts[pair[0]], hosts[pair[1]]) == (flow.src, flow.dst))
    delay_ms = max(0.0, flow.link.delay_ms - overhead_ms[pair])
    link: Link = replace(flow.link, delay_ms=delay_ms, jitter_ms=min(flow.link.jitter_ms, delay_ms))
    return replace(flow, link=link)
