import json
import os
import select
import signal
import socket
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parties.errors import HelloRefused, PeerLost, PeersMissing
from parties.transport.mesh import ROLES
from parties.transport.rendezvous import MAX_HELLO_BYTES, PROTOCOL_VERSION, refuse_self_connection
from tests.helpers.waiting import PATIENCE_S
from tests.helpers.wires import SESSION, child, join, later, listeners

PAIR = ("client", "server")


def hello(**changes: Any) -> bytes:
    fields = {"version": PROTOCOL_VERSION, "session": SESSION, "role": "server", "to": "client", **changes}
    text = json.dumps(fields).encode()
    return len(text).to_bytes(4, "big") + text


def reply_of(wire: socket.socket) -> dict[str, Any]:
    """The reply of the other end; empty if it closed the connection instead."""
    with wire.makefile("rb") as stream:
        size = stream.read(4)
        return json.loads(stream.read(int.from_bytes(size, "big"))) if len(size) == 4 else {}


@pytest.mark.slow
def test_the_error_names_who_is_missing_and_what_is_known() -> None:
    with listeners(*ROLES) as (bound, addresses):
        bound["client"].close()
        with pytest.raises(PeersMissing) as caught:
            join("server", bound, addresses, timeout_s=3.0)
    assert list(caught.value.missing) == ["client", "dealer", "referee"]
    assert f"client: 127.0.0.1 port {addresses['client'][1]}: Connection refused" in str(caught.value)
    assert f"dealer: it has not dialled 127.0.0.1 port {addresses['server'][1]}" in str(caught.value)


@pytest.mark.slow
def test_a_mesh_that_fails_closes_its_connections() -> None:
    with listeners(*ROLES[:3]) as (bound, addresses):
        failing = later(lambda: join("client", bound, addresses, timeout_s=5.0))
        with join("server", bound, {"client": addresses["client"]}) as mesh:
            with pytest.raises(PeersMissing, match="dealer") as caught:
                failing.result(PATIENCE_S)
            assert list(caught.value.missing) == ["dealer"]
            with pytest.raises(PeerLost):
                mesh["client"].receive()


def test_another_session_is_refused_at_once_without_revealing_it() -> None:
    with listeners(*PAIR, "dealer") as (bound, addresses):
        client = later(join, "client", bound, {"server": addresses["server"]})
        with pytest.raises(HelloRefused, match="client refused our hello: it is in another session") as caught:
            join("server", bound, addresses, session="yesterday's")
        assert SESSION not in str(caught.value)
        with join("server", bound, {"client": addresses["client"]}), client.result(PATIENCE_S) as mesh:
            assert list(mesh) == ["server"]


@pytest.mark.slow
def test_the_refused_role_is_reported_as_missing_with_the_reason(caplog: pytest.LogCaptureFixture) -> None:
    with listeners(*PAIR) as (bound, addresses):
        client = later(lambda: join("client", bound, addresses, timeout_s=5.0))
        with pytest.raises(HelloRefused):
            join("server", bound, addresses, session="yesterday's")
        with pytest.raises(PeersMissing, match="server: refused its hello: it is in another session"):
            client.result(PATIENCE_S)
    assert "client refused a connection: it is in another session" in caplog.text
    assert SESSION not in caplog.text


REFUSED = {
    "unknown role": ({"role": "observer"}, "no 'observer' is expected"),
    "role of another partial mesh": ({"role": "referee"}, "no 'referee' is expected"),
    "our own role": ({"role": "client"}, "no 'client' is expected"),
    "no role": ({"role": None}, "no None is expected"),
    "odd role": ({"role": ["server"]}, "is expected"),
    "odd session": ({"session": 7}, "another session"),
    "surrogate session": ({"session": "\ud800"}, "another session"),
    "other version": ({"version": 99}, f"protocol version is 99, ours is {PROTOCOL_VERSION}"),
    "other destination": ({"to": "dealer"}, "addressed to 'dealer', this is client"),
    "endless role": ({"role": "x" * 3000}, "is expected"),
}


@pytest.mark.parametrize(("changes", "reason"), REFUSED.values(), ids=REFUSED)
def test_a_wrong_hello_is_answered_with_the_reason_and_honest_parties_get_in(
    changes: dict[str, Any], reason: str
) -> None:
    with listeners(*PAIR) as (bound, addresses):
        client = later(join, "client", bound, addresses)
        with socket.create_connection(addresses["client"], PATIENCE_S) as stranger:
            stranger.sendall(hello(**changes))
            answer = reply_of(stranger)
            assert reason in answer["refused"]
            assert len(answer["refused"]) < 200
            assert stranger.recv(1) == b""
        with join("server", bound, addresses), client.result(PATIENCE_S) as mesh:
            assert list(mesh) == ["server"]


def test_a_second_party_of_the_same_role_is_refused() -> None:
    with listeners(*PAIR, "dealer") as (bound, addresses):
        client = later(join, "client", bound, addresses)
        with join("server", bound, {"client": addresses["client"]}) as first:
            with pytest.raises(HelloRefused, match="a server has already joined"):
                join("server", bound, {"client": addresses["client"]})
            with join("dealer", bound, {"client": addresses["client"]}), client.result(PATIENCE_S) as mesh:
                first["client"].send(b"still the one")
                assert mesh["server"].receive() == b"still the one"


STRANGERS = {
    "silent": b"",
    "half a length": b"\0",
    "half a hello": hello()[:20],
    "http": b"GET / HTTP/1.1\r\n\r\n",
    "too long": (MAX_HELLO_BYTES + 1).to_bytes(4, "big") + b"{}",
    "not json": (4).to_bytes(4, "big") + b"\xff\xfe{{",
    "not an object": (2).to_bytes(4, "big") + b"[]",
    "deep": (4000).to_bytes(4, "big") + b"[" * 4000,
}


@pytest.mark.parametrize("reset", [False, True], ids=["staying", "reset"])
@pytest.mark.parametrize("noise", STRANGERS.values(), ids=STRANGERS)
def test_a_stranger_does_not_keep_honest_parties_out(noise: bytes, reset: bool) -> None:
    with listeners(*PAIR) as (bound, addresses):
        client = later(join, "client", bound, addresses)
        with socket.create_connection(addresses["client"], PATIENCE_S) as stranger:
            stranger.sendall(noise)
            if reset:
                stranger.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                stranger.close()
            with join("server", bound, addresses), client.result(PATIENCE_S) as mesh:
                assert list(mesh) == ["server"]
            assert reset or hung_up(stranger), "the stranger was let in"


@pytest.mark.parametrize("noise", ["http", "too long", "not json", "not an object", "deep"])
def test_a_stranger_that_sends_garbage_is_disconnected_at_once(noise: str) -> None:
    with listeners(*PAIR) as (bound, addresses):
        client = later(join, "client", bound, addresses)
        with socket.create_connection(addresses["client"], PATIENCE_S) as stranger:
            stranger.sendall(STRANGERS[noise])
            assert hung_up(stranger)
            assert not client.done()
        with join("server", bound, addresses), client.result(PATIENCE_S) as mesh:
            assert list(mesh) == ["server"]


def hung_up(wire: socket.socket) -> bool:
    """Whether the other end closed the connection without a reply."""
    try:
        return wire.recv(1) == b""
    except ConnectionResetError:
        return True


@given(noise=st.binary(max_size=60))
@settings(max_examples=15, deadline=None)
def test_no_bytes_break_the_accept_loop(noise: bytes) -> None:
    with listeners(*PAIR) as (bound, addresses):
        client = later(join, "client", bound, addresses)
        with socket.create_connection(addresses["client"], PATIENCE_S) as stranger:
            stranger.sendall(noise)
            with join("server", bound, addresses), client.result(PATIENCE_S) as mesh:
                assert list(mesh) == ["server"]


@pytest.mark.parametrize("answer", [b"HTTP/1.0 200 OK\r\n\r\n", b"", b"\0\0\0\2[]"], ids=["http", "nothing", "list"])
@pytest.mark.slow
def test_dialling_something_else_is_reported_as_missing(answer: bytes) -> None:
    with listeners("server") as (bound, _), socket.create_server(("127.0.0.1", 0)) as other:

        def serve() -> None:
            wire, _ = other.accept()
            with wire:
                wire.recv(1000)
                wire.sendall(answer)

        serving = later(serve)
        with pytest.raises(PeersMissing, match=f"client: 127.0.0.1 port {other.getsockname()[1]}: "):
            join("server", bound, {"client": other.getsockname()}, timeout_s=3.0)
        serving.result(PATIENCE_S)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [("{}", "something else"), ('{"welcome":"dealer"}', "something else"), ('{"refused":"no"}', "no")],
)
def test_only_a_welcome_by_the_dialled_role_counts(answer: str, expected: str) -> None:
    with listeners("server") as (bound, _), socket.create_server(("127.0.0.1", 0)) as other:

        def serve() -> None:
            wire, _ = other.accept()
            with wire:
                wire.recv(1000)
                wire.sendall(len(answer).to_bytes(4, "big") + answer.encode())

        serving = later(serve)
        with pytest.raises(HelloRefused, match=f"client refused our hello: .*{expected}"):
            join("server", bound, {"client": other.getsockname()})
        serving.result(PATIENCE_S)


def test_a_socket_that_dialled_itself_is_not_a_peer() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.connect(sock.getsockname())
        with pytest.raises(ConnectionRefusedError):
            refuse_self_connection(sock)


def test_an_interrupted_party_stops_connecting() -> None:
    ready, notify = os.pipe()
    with listeners("server") as (bound, _), socket.create_server(("127.0.0.1", 0)) as silent:

        def server() -> None:
            try:
                join("server", bound, {"client": silent.getsockname(), "dealer": ("127.0.0.1", 1)})
            except KeyboardInterrupt:
                os.write(notify, b"interrupted")

        with child(server) as pid:
            wire, _ = silent.accept()
            with wire:
                os.kill(pid, signal.SIGINT)
                assert select.select([ready], [], [], PATIENCE_S)[0]
                assert os.read(ready, 100) == b"interrupted"
    os.close(ready)
    os.close(notify)


@pytest.mark.parametrize("roles", [("klient", "server"), ("client", "servant")])
def test_an_unknown_own_role_is_an_error_of_the_caller(roles: tuple[str, str]) -> None:
    with listeners(roles[0]) as (bound, _), pytest.raises(ValueError, match="use one of client, server, dealer, refer"):
        join(roles[0], bound, {roles[1]: ("127.0.0.1", 1)})
