"""The HTTP port where Prometheus finds one party."""

import contextlib
import logging
import socket
import socketserver
import threading
from collections.abc import Mapping
from typing import Any

from prometheus_client import CollectorRegistry, MetricsHandler

from parties.address import address_of, listen
from parties.collector import PartyCollector
from parties.meter import StageMeter
from parties.metrics import BY_NAME, RUN_INFO

SETTABLE = (
    "mpcbench_tokens_total",
    "mpcbench_last_token_seconds",
    "mpcbench_cache_tokens",
    "mpcbench_selected_tokens",
    "mpcbench_cell_state",
)
PARAMETERS = tuple(label for label in BY_NAME[RUN_INFO].labels if label != "party")
POLL_SECONDS = 0.1  # how soon the server notices that it is to close
HUNG_SCRAPE_SECONDS = 5

log = logging.getLogger(__name__)


class Exporter:
    """Serves the metrics of one party from its binding until `close`, from threads of its own.

    Args:
        role: value of the label `party`.
        meter: read at each scrape.
        host: address to bind.
        port: port to bind; 0 takes a free one.

    Attributes:
        address: the (host, port) that Prometheus scrapes.

    Raises:
        AddressInUse: another process listens on host and port.
        AddressUnusable: the host is no address of this machine, or the port may not be bound.
    """

    def __init__(self, role: str, meter: StageMeter, host: str, port: int = 0) -> None:
        self._collector = PartyCollector(role, meter)
        registry = CollectorRegistry()
        registry.register(self._collector)
        self._server = _Server(host, port, MetricsHandler.factory(registry))
        self.address = address_of(self._server.socket)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(POLL_SECONDS,), daemon=True)
        self._thread.start()

    def set_run(self, info: Mapping[str, str]) -> None:
        """Begins a cell: `info` becomes `mpcbench_run_info`, and the numbers of the last cell are forgotten.

        Raises:
            ValueError: a key is not one of `PARAMETERS`.
        """
        if unknown := sorted(set(info) - set(PARAMETERS)):
            raise ValueError(f"run parameters {unknown} are unknown; use some of {PARAMETERS}")
        self._collector.values = {}
        self._collector.run = dict(info)

    def set_value(self, name: str, value: float) -> None:
        """Sets a number that only the party knows, until the next call or cell.

        Raises:
            ValueError: `name` is not one of `SETTABLE`.
        """
        if name not in SETTABLE:
            raise ValueError(f"metric {name!r} cannot be set; use one of {SETTABLE}")
        self._collector.values = {**self._collector.values, name: value}

    def close(self) -> None:
        """Frees the port and ends all threads, those of half-open scrapes too. Closing twice is fine."""
        self._server.close()
        self._thread.join()


class _Server(socketserver.ThreadingTCPServer):
    """One thread a scrape; knows its open connections, so that it can be closed while a scrape hangs."""

    def __init__(self, host: str, port: int, handler: type[MetricsHandler]) -> None:
        listener = listen(host, port)
        handler.timeout = HUNG_SCRAPE_SECONDS
        super().__init__(address_of(listener), handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self._connections: set[Any] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - the base class calls it so
        log.warning("a scrape by %s failed", client_address[0], exc_info=True)

    def close(self) -> None:
        self.shutdown()
        for connection in tuple(self._connections):
            with contextlib.suppress(OSError):  # it may have ended by itself
                connection.shutdown(socket.SHUT_RDWR)
        self.server_close()
