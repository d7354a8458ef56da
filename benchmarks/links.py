"""Requested against measured links, for every preset and back end.

    python benchmarks/links.py [--networks lan,wan] [--backends relay,proxy] [--seconds 1]

Prints a Markdown table with one row per network and back end. Each value is that of the ordered pair, among three
hosts, with the largest deviation; CPU seconds are those of the relay or proxy during the measurement of all six pairs,
for the relay also per Gbit carried. The back ends `relay` and `tc` need root.
"""

import argparse
import contextlib
import os
import platform
import socket
import time
from collections.abc import Iterator, Mapping

import psutil

from netem import (
    Address,
    LocalSite,
    Measured,
    NetemError,
    NetworkProfile,
    Pair,
    ProfileError,
    ShapedNetwork,
    Site,
    preset,
    presets,
    shape,
)
from netem.lab import Lab

NAMES = ("a", "b", "c")
PORT = 7000
HEADER = (
    "| network | back end | RTT ms asked | measured | p99 | Mbit/s asked | measured | within | CPU s | per Gbit |",
    "|---|---|---|---|---|---|---|---|---|---|",
)


def main() -> None:
    given = parse()
    print(f"{platform.system()} {platform.release()}, {os.cpu_count()} CPUs, three hosts, six ordered pairs\n")
    print(*HEADER, sep="\n", flush=True)
    if "proxy" in given.backends:
        with loopback() as endpoints:
            for name in given.networks:
                row(preset(name), endpoints, LocalSite(), "proxy", given.seconds)
    in_lab = [backend for backend in given.backends if backend != "proxy"]
    if not in_lab:
        return
    began = time.perf_counter()
    with Lab.up(len(NAMES)) as lab:
        up = time.perf_counter() - began
        endpoints = {name: (host.address, PORT) for name, host in zip(NAMES, lab.hosts, strict=True)}
        for backend in in_lab:
            for name in given.networks:
                row(preset(name), endpoints, lab, backend, given.seconds)
        began = time.perf_counter()
    print(f"\nlab of three hosts: up in {up:.2f} s, down in {time.perf_counter() - began:.2f} s")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Requested against measured links, for every preset and back end.")
    shaped = [profile.name for profile in presets() if profile.shaped]
    parser.add_argument("--networks", type=words, default=shaped)
    backends = ["proxy", "relay", "tc"] if os.geteuid() == 0 else ["proxy"]
    parser.add_argument("--backends", type=words, default=backends)
    parser.add_argument("--seconds", type=float, default=1.0, help="seconds per measurement of throughput")
    return parser.parse_args()


def words(text: str) -> list[str]:
    return text.split(",")


@contextlib.contextmanager
def loopback() -> Iterator[dict[str, Address]]:
    """Three parties that listen on loopback."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in NAMES]
        yield {name: sock.getsockname() for name, sock in zip(NAMES, sockets, strict=True)}


def row(profile: NetworkProfile, endpoints: Mapping[str, Address], site: Site, backend: str, seconds: float) -> None:
    try:
        with shape(profile, endpoints, site=site, backend=backend) as network:
            before, _ = carried(network, site)
            measured = network.measure(seconds)
            after, gbit = carried(network, site)
    except (NetemError, ProfileError) as error:
        print(f"| {profile.name} | {backend} | not possible: {error} |", flush=True)
        return
    print(
        "| " + " | ".join((profile.name, backend, *cells(network, measured, after - before, gbit))) + " |", flush=True
    )


def cells(network: ShapedNetwork, measured: Mapping[Pair, Measured], spent: float, gbit: float) -> Iterator[str]:
    profile = network.profile
    rtt = max(measured, key=lambda pair: abs(measured[pair].rtt_ms - profile.rtt_ms(*pair)))
    rate = max(measured, key=lambda pair: abs(measured[pair].rate_mbit / asked_rate(profile, pair) - 1))
    yield f"{profile.rtt_ms(*rtt):.4g}"
    yield f"{measured[rtt].rtt_ms:.2f}"
    yield f"{measured[rtt].rtt_p99_ms:.2f}"
    yield f"{asked_rate(profile, rate):g}"
    yield f"{measured[rate].rate_mbit:.0f}"
    yield "; ".join(network.deviations(measured)) or "yes"
    yield f"{spent:.2f}" if spent else "-"
    yield f"{spent / gbit:.2f}" if gbit else "-"


def asked_rate(profile: NetworkProfile, pair: Pair) -> float:
    return profile.link(*pair).rate_mbit or float("inf")


def carried(network: ShapedNetwork, site: Site) -> tuple[float, float]:
    """CPU seconds so far of the process that carries the packets, 0 if the kernel does; Gbit, if it counts them."""
    if network.backend == "relay" and site.hub is not None:
        reply = site.call(site.hub, "relay", {})
        return float(reply["cpu_seconds"]), sum(flow["bytes"] for flow in reply["flows"]) * 8 / 1e9
    if network.backend == "proxy":
        times = psutil.Process(network.details["pid"]).cpu_times()
        return float(times.user + times.system), 0.0
    return 0.0, 0.0


if __name__ == "__main__":
    main()
