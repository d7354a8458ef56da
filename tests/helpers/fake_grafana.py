"""A fake Grafana server: the part of its HTTP API that a push uses, after Grafana's description of it.

It is not Grafana. It keeps folders, data sources, boards and annotations in memory, checks requests as the
description says (400, 401, 404, 409, 412), and fails on request: with a status, slowly, in the middle of an answer.
"""

import contextlib
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

TOKEN = "glsa_for_tests_only"  # noqa: S105 - of this fake alone
Fault = Callable[["_Handler"], None]


class RefusedError(Exception):
    """A reply with an error status."""

    def __init__(self, status: int, message: str, /, **more: str) -> None:
        self.status, self.body = status, {"message": message, **more}


@dataclass
class FakeGrafana:
    """The state of the server, and how it is to fail.

    Attributes:
        faults: One for each future request, by a part of its path; a request takes the first that matches.
        seen: Method and path of every request.
    """

    folders: dict[str, dict[str, Any]] = field(default_factory=dict)
    sources: dict[str, dict[str, Any]] = field(default_factory=dict)
    boards: dict[str, dict[str, Any]] = field(default_factory=dict)
    annotations: list[dict[str, Any]] = field(default_factory=list)
    faults: list[tuple[str, Fault]] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)
    prefix: str = ""
    url: str = ""

    def fault(self, path: str) -> Fault | None:
        for place, (part, fault) in enumerate(self.faults):
            if part in path:
                del self.faults[place]
                return fault
        return None

    def answer(self, method: str, path: str, query: dict[str, list[str]], body: Any) -> Any:
        match [method, *path.removeprefix("/api/").split("/")]:
            case ["GET", "folders", uid]:
                return _one(self.folders, uid, "folder not found")
            case ["POST", "folders"]:
                return self._add_folder(body)
            case ["GET", "datasources", "uid", uid]:
                return _one(self.sources, uid, "Data source not found")
            case ["POST", "datasources"]:
                return self._add_source(body)
            case ["PUT", "datasources", "uid", uid]:
                self.sources[uid] = {**_one(self.sources, uid, "Data source not found"), **body}
                return {"datasource": self.sources[uid], "message": "Datasource updated"}
            case ["GET", "dashboards", "uid", uid]:
                return _one(self.boards, uid, "Dashboard not found")
            case ["POST", "dashboards", "db"]:
                return self._store_board(body)
            case ["GET", "annotations"]:
                tags, limit = set(query.get("tags", [])), int(query.get("limit", ["100"])[0])
                return [one for one in self.annotations if tags <= set(one["tags"])][:limit]
            case ["POST", "annotations"]:
                self.annotations.append({"id": len(self.annotations) + 1, **_annotation(body)})
                return {"id": len(self.annotations), "message": "Annotation added"}
            case ["PUT", "annotations", number]:
                self.annotations[int(number) - 1] |= _annotation(body)
                return {"message": "Annotation updated"}
        raise RefusedError(404, "Not found")

    def _add_folder(self, body: dict[str, Any]) -> Any:
        if not body.get("title"):
            raise RefusedError(400, "folder title cannot be empty")
        if body["uid"] in self.folders or body["title"] in [one["title"] for one in self.folders.values()]:
            raise RefusedError(409, "a folder with the same name in the current location already exists")
        self.folders[body["uid"]] = body
        return body

    def _add_source(self, body: dict[str, Any]) -> Any:
        if body["name"] in [one["name"] for one in self.sources.values()]:
            raise RefusedError(409, "data source with the same name already exists")
        if body["access"] not in ("proxy", "direct"):
            raise RefusedError(400, "bad request data")
        self.sources[body["uid"]] = {"id": len(self.sources) + 1, "readOnly": False, "version": 1, **body}
        return {"datasource": self.sources[body["uid"]], "message": "Datasource added", "name": body["name"]}

    def _store_board(self, body: dict[str, Any]) -> Any:
        board, folder = body["dashboard"], body.get("folderUid", "")
        if not board.get("title") or len(board["uid"]) > 40:
            raise RefusedError(400, "Dashboard title cannot be empty, and its uid has at most 40 characters")
        if folder and folder not in self.folders:
            raise RefusedError(400, "folder not found", status="not-found")
        old = self.boards.get(board["uid"])
        if old is not None and old["meta"].get("provisioned"):
            raise RefusedError(400, "Cannot save provisioned dashboard")
        if old is not None and not body.get("overwrite"):
            raise RefusedError(412, "A dashboard with the same uid already exists", status="name-exists")
        version = old["dashboard"]["version"] + 1 if old else 1
        self.boards[board["uid"]] = {
            "dashboard": {**board, "id": 7, "version": version},
            "meta": {"folderUid": folder, "provisioned": False},
        }
        return {"uid": board["uid"], "status": "success", "version": version}


def _one(things: dict[str, dict[str, Any]], uid: str, missing: str) -> dict[str, Any]:
    if uid not in things:
        raise RefusedError(404, missing)
    return things[uid]


def _annotation(body: dict[str, Any]) -> dict[str, Any]:
    if not body.get("text"):
        raise RefusedError(400, "Failed to save annotation: text field should not be empty")
    if body["timeEnd"] < body["time"]:
        raise RefusedError(400, "Failed to save annotation: invalid time range")
    return {key: body[key] for key in ("time", "timeEnd", "tags", "text")}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: "_Server"

    def _serve(self) -> None:
        grafana, parts = self.server.grafana, urlsplit(self.path)
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or "null")
        grafana.seen.append(f"{self.command} {parts.path}")
        if fault := grafana.fault(parts.path):
            fault(self)
        elif not parts.path.startswith(f"{grafana.prefix}/api/"):
            self.send(404, b"<html>404 page not found</html>", "text/html")
        elif self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.send_json(401, {"message": "Invalid API key"})
        else:
            path = parts.path.removeprefix(grafana.prefix)
            try:
                self.send_json(200, grafana.answer(self.command, path, parse_qs(parts.query), body))
            except RefusedError as refused:
                self.send_json(refused.status, refused.body)

    do_GET = do_POST = do_PUT = _serve  # noqa: N815 - as the base class calls them

    def send_json(self, status: int, body: Any) -> None:
        self.send(status, json.dumps(body).encode(), "application/json; charset=UTF-8")

    def send(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Logs nothing, to keep the output of tests clean."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    grafana: FakeGrafana

    def handle_error(self, *_: object) -> None:
        """Ignores clients that gave up, which some tests provoke."""


@contextlib.contextmanager
def serving_fake(prefix: str = "") -> Iterator[FakeGrafana]:
    """Serves a fake Grafana on loopback, below `prefix` as behind a proxy."""
    with _Server(("127.0.0.1", 0), _Handler) as server:
        host, port = server.server_address[:2]
        server.grafana = FakeGrafana(prefix=prefix, url=f"http://{host!s}:{port}{prefix}")
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.grafana
        finally:
            server.shutdown()
            thread.join()


def status(code: int, message: str = "no") -> Fault:
    """A reply of this status, as Grafana words it."""
    return lambda handler: handler.send_json(code, {"message": message})


def html(handler: _Handler) -> None:
    """The page of another service."""
    handler.send(200, b"<html>Log in</html>", "text/html")


def no_json(handler: _Handler) -> None:
    """A truncated reply."""
    handler.send(200, b'{"uid": ', "application/json")


def silent(handler: _Handler) -> None:
    """No reply until the client gives up and closes the connection."""
    handler.rfile.read(1)
    handler.close_connection = True


def reset(handler: _Handler) -> None:
    """The connection is reset before a reply."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()
    handler.close_connection = True
