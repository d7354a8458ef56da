"""The HTTP endpoint that serves the metrics of one party to Prometheus."""

from http.server import BaseHTTPRequestHandler

from prometheus_client import generate_latest

from parties.address import listen
from parties.metering.collector import PartyCollector
from parties.metering.meter import StageMeter
from parties.metering.progress import Progress
from parties.metering.serving import HttpServer

_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Exporter:
    """Serves the metrics of one party from its construction until `close`, in its own threads.

    Args:
        role: Value of the label `party`.
        meter: Meter to read at each scrape.
        host: Address to bind.
        port: Port to bind; 0 takes a free one.

    Attributes:
        address: The (host, port) that Prometheus scrapes.

    Raises:
        AddressInUse: Another process listens on host and port.
        AddressUnusable: The host is not an address of this machine, or the port may not be bound.
    """

    def __init__(self, role: str, meter: StageMeter, host: str, port: int = 0) -> None:
        self._collector = PartyCollector(role, meter)
        self._server = HttpServer(listen(host, port), _handler(self._collector))
        self.address = self._server.address

    def observe(self, state: Progress) -> None:
        """Serves the metrics of the party's progress from now on."""
        self._collector.state = state

    def close(self) -> None:
        """Frees the port and ends all threads, including those of unfinished scrapes. Idempotent."""
        self._server.close()


def _handler(collector: PartyCollector) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = generate_latest(collector)
            self.send_response(200)
            self.send_header("Content-Type", _CONTENT_TYPE)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Handler
