"""How much delay a user-space back end adds by itself, measured before it is asked to add any."""

import statistics

from netem.prober import ProbeServer, measure_rtt
from netem.process import Child, command

_SAMPLES = 60


def proxy_overhead_ms() -> float:
    """One-way delay that a proxy adds to loopback on this machine now, in milliseconds."""
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
    # What loopback itself takes is part of the round trip that is asked for, so it is compensated too.
    return max(through, direct) / 2 * 1e3
