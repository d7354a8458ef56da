"""HTTP routes of the driver: its own metrics, the metrics of parties that only it can reach, and the live page."""

import http.client
import json
import time
from collections.abc import Callable, Iterable, Mapping
from http.server import BaseHTTPRequestHandler
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric as Family
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from orchestrator.watch.watch import Watch
from parties.metering.collector import Sample, families
from parties.metering.process import process_readings
from parties.metering.registry import DRIVER

METRICS = "/metrics"
_RELAY_S = 2.0


class Request(NamedTuple):
    """A request: its query by name, and the format of metrics that it accepts."""

    query: Mapping[str, str]
    accept: str


class Reply(NamedTuple):
    """A reply: its body, content type and status."""

    body: bytes
    kind: str = "text/plain; charset=utf-8"
    status: int = 200


Route = Callable[[Request], Reply]
Routes = Callable[[str], Route | None]


class DriverCollector(Collector):
    """The metrics of the driver: of the run, and of its own process."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def collect(self) -> Iterable[Family]:
        """All metrics that have a value now."""
        own: list[Sample] = [(name, {}, value) for name, value in process_readings()]
        yield from families([*self._watch.samples(), *own], DRIVER)


class Metrics:
    """`/metrics`.

    Args:
        watch: The state of the run.

    Attributes:
        scraped: Time of the last scrape on the monotonic clock; minus infinity before the first.
    """

    def __init__(self, watch: Watch) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(DriverCollector(watch))
        self.scraped = float("-inf")

    def __call__(self, request: Request) -> Reply:
        """All metrics, in the requested format."""
        self.scraped = time.monotonic()
        encode, kind = choose_encoder(request.accept)
        return Reply(encode(self._registry), kind)


def relay(host: str, port: int) -> Route:
    """A route that passes on the metrics of an exporter."""

    def route(request: Request) -> Reply:
        connection = http.client.HTTPConnection(host, port, timeout=_RELAY_S)
        try:
            connection.request("GET", METRICS, headers={"Accept": request.accept})
            answer = connection.getresponse()
            return Reply(answer.read(), answer.getheader("Content-Type", ""), answer.status)
        except (OSError, http.client.HTTPException) as error:
            return Reply(f"{host} port {port} does not answer: {error}\n".encode(), status=502)
        finally:
            connection.close()

    return route


def page_routes(watch: Watch, html: bytes) -> Routes:
    """The live page, and the updates that it requests every second."""

    def news(request: Request) -> Reply:
        query = request.query
        try:
            state = watch.page(query.get("cell", ""), int(query.get("generation", -1)), int(query.get("seen", 0)))
        except ValueError:
            return Reply(b"generation and seen must be whole numbers\n", status=400)
        return Reply(json.dumps(state, separators=(",", ":")).encode(), "application/json")

    routes: dict[str, Route] = {"/": lambda _: Reply(html, "text/html; charset=utf-8"), "/news": news}
    return routes.get


def handler(routes: Routes) -> type[BaseHTTPRequestHandler]:
    """A handler that answers GET by the path's route."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = urlsplit(self.path)
            route = routes(url.path)
            query = {name: values[-1] for name, values in parse_qs(url.query).items()}
            request = Request(query, self.headers.get("Accept", ""))
            reply = Reply(b"there is nothing here\n", status=404) if route is None else route(request)
            self.send_response(reply.status)
            self.send_header("Content-Type", reply.kind)
            self.send_header("Content-Length", str(len(reply.body)))
            self.send_header("Cache-Control", "no-store")
            self.send_header("X-Content-Type-Options", "nosniff")
            self.end_headers()
            self.wfile.write(reply.body)

    return Handler
