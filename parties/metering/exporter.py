"""The HTTP port where Prometheus finds one party."""

from http.server import BaseHTTPRequestHandler

from parties.address import listen
from parties.metering.collector import PartyCollector
from parties.metering.exposition import CONTENT_TYPE, exposition
from parties.metering.meter import StageMeter
from parties.metering.progress import State
from parties.metering.serving import HttpServer


class Exporter:
    """Serves the metrics of one party from its binding until `close`, from threads of its own.

    Args:
        role: Value of the label `party`.
        meter: Read at each scrape.
        host: Address to bind.
        port: Port to bind; 0 takes a free one.

    Attributes:
        address: The (host, port) that Prometheus scrapes.

    Raises:
        AddressInUse: Another process listens on host and port.
        AddressUnusable: The host is no address of this machine, or the port may not be bound.
    """

    def __init__(self, role: str, meter: StageMeter, host: str, port: int = 0) -> None:
        self._collector = PartyCollector(role, meter)
        self._server = HttpServer(listen(host, port), _handler(self._collector))
        self.address = self._server.address

    def observe(self, state: State) -> None:
        """From now on the state is served too."""
        self._collector.state = state

    def close(self) -> None:
        """Frees the port and ends all threads, those of half-open scrapes too. Closing twice is fine."""
        self._server.close()


def _handler(collector: PartyCollector) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = exposition(collector.collect())
            self.send_response(200)
            self.send_header("Content-Type", CONTENT_TYPE)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Handler
