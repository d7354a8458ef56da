"""An HTTP server in its own threads that can be closed while a request hangs."""

import contextlib
import logging
import socket
import socketserver
import sys
import threading
from http.server import BaseHTTPRequestHandler
from typing import Any

from parties.address import address_of

POLL_SECONDS = 0.1  # maximum delay of `close`
HUNG_REQUEST_SECONDS = 5

log = logging.getLogger(__name__)


class HttpServer:
    """Serves from its construction until `close`.

    Args:
        listener: A listening TCP socket; the server takes ownership.
        handler: Handler class for the requests.

    Attributes:
        address: The (host, port) that it listens on.
    """

    def __init__(self, listener: socket.socket, handler: type[BaseHTTPRequestHandler]) -> None:
        self.address = address_of(listener)
        self._server = _Server(listener, handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(POLL_SECONDS,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Frees the port and ends all threads, including those of unfinished requests. Idempotent."""
        self._server.close()
        self._thread.join()


class _Server(socketserver.ThreadingTCPServer):
    """A server with one thread per request that tracks its open connections."""

    def __init__(self, listener: socket.socket, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(address_of(listener), _with_timeout(handler), bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self._connections: set[Any] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - the signature of the base class
        if not isinstance(sys.exception(), ConnectionError):  # a browser that is closed, a scrape that is out of time
            log.warning("a request by %s failed", client_address[0], exc_info=True)

    def close(self) -> None:
        self.shutdown()
        for connection in tuple(self._connections):
            with contextlib.suppress(OSError):  # it may already be closed
                connection.shutdown(socket.SHUT_RDWR)
        self.server_close()


def _with_timeout(handler: type[BaseHTTPRequestHandler]) -> type[BaseHTTPRequestHandler]:
    """The handler with a timeout for each request, and without a log line per request."""
    return type(handler.__name__, (handler,), {"timeout": HUNG_REQUEST_SECONDS, "log_message": lambda *_: None})
