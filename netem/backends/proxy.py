"""Back end `proxy`: an unprivileged process that forwards all connections on loopback."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict

from netem.backends.request import Paths, Request
from netem.calibrate import proxy_overhead_ms
from netem.process import Child, command


def obstacle(request: Request) -> str:
    """Why this back end cannot serve the request; empty if it can."""
    if not request.on_loopback:
        return "it only serves parties on the loopback of one machine"
    lossy = [">".join(pair) for pair in request.pairs if request.link(pair).loss_pct]
    if lossy:
        return f"it carries byte streams, which lose nothing, and {lossy[0]} requests loss_pct"
    return ""


@contextmanager
def shaped(request: Request) -> Iterator[Paths]:
    """Give each ordered pair its own addresses to dial, for data and for probes."""
    overhead_ms = proxy_overhead_ms()
    targets = [
        (pair, endpoints[pair[1]]) for endpoints in (request.endpoints, request.probes) for pair in request.pairs
    ]
    proxy = Child(
        command("netem.proxy_process"),
        {
            "compensation_ms": overhead_ms,
            "lines": {">".join(pair): asdict(request.link(pair)) for pair in request.pairs},
            "forwards": [{"src": src, "dst": dst, "target": target} for (src, dst), target in targets],
        },
    )
    try:
        addresses = [(host, port) for host, port in proxy.answer["addresses"]]
        data = dict(zip(request.pairs, addresses, strict=False))
        probe = dict(zip(request.pairs, addresses[len(request.pairs) :], strict=True))
        details = {"pid": proxy.pid, "scheduling": proxy.answer["scheduling"], "compensation_ms": round(overhead_ms, 4)}
        yield Paths(data, probe, details)
    finally:
        proxy.close()
