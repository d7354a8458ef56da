"""Measures the delay that a user-space back end adds by itself, to subtract it from the requested delay."""

import statistics

from netem.prober import ProbeServer, measure_rtt
from netem.process import Child, command

_SAMPLES = 60


def proxy_overhead_ms() -> float:
    """One-way delay through a proxy on the loopback of this machine, in milliseconds."""
    with ProbeServer("127.0.0.1") as server:
        given = {
            "compensation_ms": 0.0,
            "lines": {"a>b": {}, "b>a": {}},
            "forwards": [{"src": "a", "dst": "b", "target": server.address}],
        }
        proxy = Child(command("netem.proxy_process"), given)
        try:
            direct = statistics.median(measure_rtt(server.address, _SAMPLES))
            through = statistics.median(measure_rtt(tuple(proxy.answer["addresses"][0]), _SAMPLES))
        finally:
            proxy.close()
    # The delay of loopback itself is part of the requested round trip, so it is compensated too.
    return max(through, direct) / 2 * 1e3
