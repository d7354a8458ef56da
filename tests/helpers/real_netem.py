"""A lab on real netem; runs under user-mode-linux and prints a line of JSON for each profile and back end."""

import json
import os
import sys
from dataclasses import asdict

from netem import NetworkProfile, Tolerance, preset, shape
from netem.lab import Lab

# On a busy host the emulated machine passes no more than some 40 Mbit/s.
PROFILES = {
    "thin": NetworkProfile.from_mapping({"rate_mbit": 20, "delay_ms": 40}),
    "asymmetric": NetworkProfile.from_mapping(
        {"rate_mbit": 20, "delay_ms": 5, "pairs": {"a>b": {"delay_ms": 30, "rate_mbit": 5}}}
    ),
    "jitter": NetworkProfile.from_mapping({"rate_mbit": 100, "delay_ms": 20, "jitter_ms": 3}),
    "loss": NetworkProfile.from_mapping({"delay_ms": 10, "loss_pct": 2}),
}

# One emulated processor, on which a system call takes 60 us: a relay in user space may be too slow there.
TOLERANCE = {"tc": Tolerance(rtt_ms=4, rate_pct=20), "relay": Tolerance(rtt_ms=4, rate_pct=90)}

_ATTEMPTS = 10
"""Of a reading: the clock of the emulated machine runs late while the host is busy."""


def main() -> None:
    """Measures each profile named in `PROFILES`, ours or a preset, by `tc`, and by `relay` to compare."""
    with Lab.up(2) as lab:
        endpoints = {name: (host.address, 7000) for name, host in zip("ab", lab.hosts, strict=True)}
        show = ["tc", "qdisc", "show", "dev", "eth0"]
        before = lab.run("h0", show, capture_output=True, text=True).stdout
        for name in os.environ["PROFILES"].split(","):
            profile = PROFILES[name] if name in PROFILES else preset(name)
            for backend in ("tc", "relay"):
                with shape(profile, endpoints, site=lab, backend=backend) as network:
                    measured = network.measure(1.0, attempts=_ATTEMPTS, tolerance=TOLERANCE[backend])
                    rules = lab.run("h0", show, capture_output=True, text=True).stdout
                report(
                    profile=name,
                    backend=backend,
                    links={">".join(pair): asdict(got) for pair, got in measured.items()},
                    rules=rules,
                    clean=lab.run("h0", show, capture_output=True, text=True).stdout == before,
                )
        with shape(preset("wan"), endpoints, site=lab) as network:
            report(auto=network.backend)


def report(**values: object) -> None:
    """One line, which the prefix sets apart from the output of the kernel."""
    sys.stdout.write("RESULT " + json.dumps(values) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
