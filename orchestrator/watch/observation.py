"""Observes a run while it lasts: the driver's exporter, the target files and, if requested, the live page."""

import contextlib
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import ray

from orchestrator.watch.outside import metrics_socket
from orchestrator.watch.page import html
from orchestrator.watch.server import METRICS, Metrics, Route, handler, page_routes, relay
from orchestrator.watch.targets import TargetFile, forget_ended, targets_dir
from orchestrator.watch.terminal import SweepProgress
from orchestrator.watch.watch import Watch
from parties.address import listen
from parties.metering.serving import HttpServer

TARGETS = "targets.json"
_LOOPBACK = "127.0.0.1"
_SCRAPE_S = 1.2  # a little more than the scrape interval
_WATCHED_S = 3.0  # a Prometheus that has scraped within this time is expected to scrape again


@dataclass(frozen=True)
class Observation:
    """A run that is observed.

    Attributes:
        watch: Receives the events of the run.
        targets: Receives the addresses of the parties' exporters.
        metrics: The driver's metrics.
    """

    watch: Watch
    targets: TargetFile
    metrics: Metrics

    def linger(self) -> None:
        """Waits until a Prometheus that scrapes has seen the last numbers."""
        if time.monotonic() - self.metrics.scraped < _WATCHED_S:
            time.sleep(_SCRAPE_S)


@contextlib.contextmanager
def observing(
    name: str, folder: Path, sweep: SweepProgress, live: socket.socket | None = None
) -> Iterator[Observation]:
    """Observes a run on the connected Ray.

    Args:
        name: Name of the experiment.
        folder: The run's folder.
        sweep: Progress of the sweep.
        live: Listening socket of the live page; None for no page.
    """
    run = f"{name}-{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(2)}"
    watch = Watch(run, folder, sweep)
    metrics = Metrics(watch)
    with contextlib.ExitStack() as stack:
        if live is not None:
            stack.enter_context(_serving(live, page_routes(watch, html())))
        inherited = metrics_socket()

        def routes(path: str) -> Route | None:
            role = path.removesuffix(METRICS).removeprefix("/")
            address = targets.exporters.get(role) if path.endswith(METRICS) else None
            return metrics if path == METRICS else None if address is None else relay(*address)

        server = stack.enter_context(_serving(inherited or listen(_own_host(), 0), routes))
        paths = [folder / TARGETS]
        with contextlib.suppress(OSError):  # no folder for state: `observe up` does not see this run, nothing else
            forget_ended(targets_dir())
            paths.append(targets_dir() / f"{run}.json")
        targets = stack.enter_context(TargetFile(paths, run, server.address, relayed=inherited is not None))
        yield Observation(watch, targets, metrics)


@contextlib.contextmanager
def _serving(listener: socket.socket, routes: Callable[[str], Route | None]) -> Iterator[HttpServer]:
    server = HttpServer(listener, handler(routes))
    try:
        yield server
    finally:
        server.close()


def _own_host() -> str:
    """The address of the driver for Prometheus: loopback if Ray has one node, the node's address otherwise."""
    alone = sum(bool(node["Alive"]) for node in ray.nodes()) == 1
    return _LOOPBACK if alone else ray.util.get_node_ip_address()
