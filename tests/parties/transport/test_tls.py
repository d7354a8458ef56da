"""Links in TLS carry the same frames and counts, and only between parties that prove their roles."""

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from parties.errors import CorruptFrame, PeerLost, PeerTimeout, PeerUnproven
from parties.metering.meter import StageMeter
from parties.transport.link import Link
from parties.transport.mesh import ROLES, Mesh
from parties.transport.tls import Authority, Identity
from tests.helpers.waiting import PATIENCE_S
from tests.helpers.wires import child, join, later, linked, listeners, tcp_pair


def identity(authority: Authority, role: str) -> Identity:
    """The identity of a party of that role, signed by the authority."""
    made = Identity()
    made.certify(authority.sign(role, made.request()), authority.certificate)
    return made


@contextmanager
def secured(timeout_s: float = PATIENCE_S) -> Iterator[tuple[Link, Link, StageMeter, StageMeter]]:
    """As `linked`, in TLS."""
    authority, (near, far) = Authority(), tcp_pair()
    theirs = later(lambda: identity(authority, "server").secure(far, "client", dialled=True, timeout_s=PATIENCE_S))
    ours = identity(authority, "client").secure(near, "server", dialled=False, timeout_s=PATIENCE_S)
    meters = StageMeter(), StageMeter()
    client = Link(ours, "server", meters[0], timeout_s)
    server = Link(theirs.result(PATIENCE_S), "client", meters[1], timeout_s)
    try:
        yield client, server, *meters
    finally:
        client.close()
        server.close()


SIZES = st.lists(st.sampled_from([0, 1, 7, 16_359, 16_360, 16_361, 70_000, 1 << 20]), min_size=1, max_size=4)


@settings(max_examples=25, deadline=None)
@given(SIZES, SIZES)
def test_frames_and_counts_are_those_without_tls(ours: list[int], theirs: list[int]) -> None:
    def counts(make: Callable[..., Any]) -> list[object]:
        with make() as (client, server, *meters):
            others = later(lambda: [server.exchange(os.urandom(size)) for size in theirs[: len(ours)]])
            mine = [os.urandom(size) for size in ours[: len(theirs)]]
            got = [client.exchange(payload) for payload in mine]
            assert others.result(PATIENCE_S) == mine
            assert [len(payload) for payload in got] == theirs[: len(ours)]
            client.send(b"one more")
            client.send(b"and another")  # two frames wait, and each is one
            assert [server.receive(), server.receive()] == [b"one more", b"and another"]
            return [
                (reading.stage, reading.sent_bytes, reading.received_bytes, reading.messages, reading.rounds)
                for meter in meters
                for reading in meter.snapshot()
            ]

    assert counts(secured) == counts(linked)


def test_one_thread_may_send_while_another_receives() -> None:
    with secured() as (client, server, *_):
        numbers = torch.arange(1 << 20)
        busy = [
            later(lambda: [client.send_tensor(numbers) for _ in range(8)]),
            later(lambda: [server.send_tensor(numbers) for _ in range(8)]),
        ]
        got = later(lambda: [server.receive_tensor(numbers.shape, numbers.dtype) for _ in range(8)])
        for _ in range(8):
            assert torch.equal(client.receive_tensor(numbers.shape, numbers.dtype), numbers)
        assert all(torch.equal(tensor, numbers) for tensor in got.result(PATIENCE_S))
        for future in busy:
            future.result(PATIENCE_S)


def test_every_pair_of_a_mesh_is_proven_for_the_first_time_and_anew() -> None:
    authority = Authority()
    with listeners(*ROLES) as (bound, addresses):
        joining = [
            later(lambda role=role: join(role, bound, addresses, identity=identity(authority, role))) for role in ROLES
        ]
        meshes = [future.result(PATIENCE_S) for future in joining]
        for role, mesh in zip(ROLES, meshes, strict=True):
            for peer, link in mesh.items():
                link.send_json([role, peer])
        for role, mesh in zip(ROLES, meshes, strict=True):
            assert [link.receive_json() for link in mesh.values()] == [[peer, role] for peer in mesh]
        for renewed in [later(mesh.renew, addresses) for mesh in meshes]:
            renewed.result(PATIENCE_S)
        for role, mesh in zip(ROLES, meshes, strict=True):
            for peer, link in mesh.items():
                link.send_json([peer, role])
        for role, mesh in zip(ROLES, meshes, strict=True):
            assert [link.receive_json() for link in mesh.values()] == [[role, peer] for peer in mesh]
            mesh.close()


def met(**identities: Identity | None) -> dict[str, Mesh | BaseException]:
    """The outcome of each party, by its role, when parties with these identities connect."""
    with listeners(*identities) as (bound, addresses):
        joining = {
            role: later(lambda role=role, own=own: join(role, bound, addresses, identity=own, timeout_s=10.0))
            for role, own in identities.items()
        }
        ended = {role: future.exception(PATIENCE_S) or future.result() for role, future in joining.items()}
    for mesh in ended.values():
        if isinstance(mesh, Mesh):
            mesh.close()
    return ended


@pytest.mark.parametrize("case", ["another run", "another role", "none of its own"])
def test_a_party_with_the_wrong_certificate_is_refused_on_both_sides(case: str) -> None:
    authority, stranger = Authority(), Authority()
    wrong = identity(stranger if case == "another run" else authority, "dealer" if case == "another role" else "server")
    if case == "none of its own":
        wrong.certify(stranger.sign("server", wrong.request()), authority.certificate)
    ended = met(client=identity(authority, "client"), server=wrong)
    assert {role: type(end) for role, end in ended.items()} == {"client": PeerUnproven, "server": PeerUnproven}
    messages = str(ended["client"]), str(ended["server"])
    assert messages[0].startswith("no TLS with server: ")
    assert messages[1].startswith("no TLS with client: ")
    assert "its certificate is for 'dealer'" in messages[0] or "not from this run" in "".join(messages)


@pytest.mark.slow
def test_a_party_without_tls_finds_no_peers_with_it() -> None:
    ended = met(client=identity(Authority(), "client"), server=None)
    assert isinstance(ended["client"], PeerUnproven)
    assert "did not respond in time" in str(ended["client"])


def test_an_invalid_request_is_not_signed() -> None:
    with pytest.raises(ValueError, match=r"."):
        Authority().sign("client", b"no request")


def test_no_key_is_left_in_a_file() -> None:
    open_files = Path("/proc/self/fd")
    before = set(open_files.iterdir())
    with secured():
        new = [file.readlink() for file in set(open_files.iterdir()) - before if file.is_symlink()]
        assert len(new) >= 2
        assert all(str(name).startswith("socket:") for name in new)


def test_a_killed_peer_is_lost() -> None:
    authority, (near, far) = Authority(), tcp_pair()

    def peer() -> None:
        near.close()
        own = identity(authority, "server").secure(far, "client", dialled=True, timeout_s=PATIENCE_S)
        link = Link(own, "client", StageMeter(), PATIENCE_S)
        link.send(b"here")
        time.sleep(PATIENCE_S)

    with child(peer) as pid:
        far.close()
        own = identity(authority, "client").secure(near, "server", dialled=False, timeout_s=PATIENCE_S)
        link = Link(own, "server", StageMeter(), PATIENCE_S)
        link.await_peer()
        assert link.receive() == b"here"
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(PeerLost, match="lost the connection to server"):
            link.receive()


def test_a_silent_peer_times_out() -> None:
    with secured(timeout_s=0.2) as (client, *_), pytest.raises(PeerTimeout):
        client.receive()


def test_a_byte_changed_on_the_way_ends_the_connection() -> None:
    authority, (near, relay_near), (relay_far, far) = Authority(), tcp_pair(), tcp_pair()
    damage: list[int] = []

    def forward(source: socket.socket, sink: socket.socket) -> None:
        while data := source.recv(1 << 16):
            sink.sendall(bytes([*data[:-1], data[-1] ^ 1]) if damage else data)

    later(forward, relay_near, relay_far)
    later(forward, relay_far, relay_near)
    theirs = later(lambda: identity(authority, "server").secure(far, "client", dialled=True, timeout_s=PATIENCE_S))
    own = identity(authority, "client").secure(near, "server", dialled=False, timeout_s=PATIENCE_S)
    client = Link(own, "server", StageMeter(), PATIENCE_S)
    server = Link(theirs.result(PATIENCE_S), "client", StageMeter(), PATIENCE_S)
    damage.append(True)
    client.send(b"what the server must not believe")
    with pytest.raises((PeerLost, CorruptFrame)):
        server.receive()
    for sock in (client, server, relay_near, relay_far):
        sock.close()
