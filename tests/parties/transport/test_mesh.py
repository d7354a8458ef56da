import os
import select
import signal
import socket
import time

import pytest

from parties.errors import AddressInUse, AddressUnusable, PeerLost
from parties.metering.meter import StageMeter
from parties.transport.mesh import ROLES, Address, Listener
from tests.helpers.metering import totals
from tests.helpers.waiting import PATIENCE_S
from tests.helpers.wires import child, join, later, listeners

PAIR = ("client", "server")


@pytest.mark.parametrize("roles", [ROLES, ROLES[:3], PAIR, ("dealer", "referee")], ids=" ".join)
def test_every_pair_is_connected_once(roles: tuple[str, ...]) -> None:
    with listeners(*roles) as (bound, addresses):
        joining = {role: later(join, role, bound, addresses) for role in roles}
        meshes = {role: future.result(PATIENCE_S) for role, future in joining.items()}
        for role, mesh in meshes.items():
            assert list(mesh) == [peer for peer in ROLES if peer in roles and peer != role]
            for peer, link in mesh.items():
                assert link.peer == peer
                link.send_json([role, peer])
        for role, mesh in meshes.items():
            assert [link.receive_json() for link in mesh.values()] == [[peer, role] for peer in mesh]
        for mesh in meshes.values():
            mesh.close()


def test_the_order_of_connections_does_not_matter() -> None:
    with listeners(*ROLES) as (bound, addresses):
        joining = []
        for role in reversed(ROLES):
            joining.append(later(join, role, bound, addresses))
            time.sleep(0.05)
        for future in joining:
            with future.result(PATIENCE_S) as mesh:
                assert len(mesh) == 3


def test_a_party_dials_until_the_other_listens() -> None:
    with listeners(*PAIR) as (bound, addresses):
        bound["client"].close()
        server = later(join, "server", bound, addresses)
        time.sleep(0.2)
        bound["client"] = Listener(*addresses["client"])
        with join("client", bound, addresses) as mesh, server.result(PATIENCE_S) as theirs:
            theirs["client"].send(b"late but here")
            assert mesh["server"].receive() == b"late but here"


@pytest.mark.parametrize("host", ["::1", "localhost"])
def test_ipv6_and_names_work(host: str) -> None:
    with listeners(*PAIR, host=host) as (bound, addresses):
        dialled = {"client": (host, addresses["client"][1]), "server": addresses["server"]}
        server = later(join, "server", bound, dialled)
        with join("client", bound, addresses) as mesh, server.result(PATIENCE_S) as theirs:
            theirs["client"].send(b"a")
            assert mesh["server"].receive() == b"a"


class Proxy:
    """Forwards one connection at a time to `target`, and closes the first `unlucky` of them."""

    def __init__(self, target: Address, unlucky: int) -> None:
        self.server = socket.create_server(("127.0.0.1", 0))
        self.address = self.server.getsockname()
        self.target = target
        self.unlucky = unlucky
        self.dials = 0

    def serve(self) -> None:
        with self.server:
            for _ in range(self.unlucky):
                self.server.accept()[0].close()
                self.dials += 1
            near, _ = self.server.accept()
            self.dials += 1
            with near, socket.create_connection(self.target) as far:
                other = {near: far, far: near}
                while True:
                    for sock in select.select([near, far], [], [], PATIENCE_S)[0]:
                        data = sock.recv(1 << 16)
                        if not data:
                            return
                        other[sock].sendall(data)


def test_addresses_may_lead_through_a_proxy_that_hangs_up_at_first() -> None:
    with listeners(*PAIR) as (bound, addresses):
        proxy = Proxy(addresses["client"], unlucky=3)
        forwarding = later(proxy.serve)
        server = later(join, "server", bound, {**addresses, "client": proxy.address})
        with join("client", bound, addresses) as mesh:
            theirs = server.result(PATIENCE_S)
            theirs["client"].send(b"through")
            assert mesh["server"].receive() == b"through"
            theirs.close()
        forwarding.result(PATIENCE_S)
        assert proxy.dials == 4


def test_links_stay_when_they_get_new_connections_at_other_addresses() -> None:
    with listeners(*PAIR) as (bound, addresses):
        server = later(join, "server", bound, addresses)
        with join("client", bound, addresses) as mesh:
            theirs, link = server.result(PATIENCE_S), mesh["server"]
            theirs["client"].send(b"never read")
            link.send(b"read")
            assert theirs["client"].receive() == b"read"
            proxy = Proxy(addresses["client"], unlucky=1)
            forwarding = later(proxy.serve)
            renewed = later(theirs.renew, {**addresses, "client": proxy.address})
            mesh.renew(addresses)
            renewed.result(PATIENCE_S)
            theirs["client"].send(b"through")
            assert link.receive() == b"through"
            link.send(b"back")
            assert theirs["client"].receive() == b"back"
            theirs.close()
        forwarding.result(PATIENCE_S)
        assert proxy.dials == 2


def test_hellos_are_not_counted() -> None:
    meter = StageMeter()
    with listeners(*PAIR) as (bound, addresses):
        server = later(join, "server", bound, addresses)
        with join("client", bound, addresses, meter=meter) as mesh, server.result(PATIENCE_S):
            assert mesh["server"].sent_bytes == mesh["server"].received_bytes == 0
    assert totals(meter, "bench").sent_bytes == 0


def test_closing_a_mesh_is_detected_by_every_peer() -> None:
    with listeners(*ROLES) as (bound, addresses):
        joining = {role: later(join, role, bound, addresses) for role in ROLES}
        meshes = {role: future.result(PATIENCE_S) for role, future in joining.items()}
        meshes.pop("dealer").close()
        for mesh in meshes.values():
            with pytest.raises(PeerLost, match="dealer"):
                mesh["dealer"].receive()
            mesh.close()


def test_a_killed_process_is_lost_to_everyone() -> None:
    with listeners(*ROLES[:3]) as (bound, addresses):

        def dealer() -> None:
            with join("dealer", bound, addresses) as mesh:
                mesh["client"].send(b"here")
                signal.pause()

        with child(dealer) as pid:
            server = later(join, "server", bound, addresses)
            with join("client", bound, addresses) as mesh, server.result(PATIENCE_S) as theirs:
                assert mesh["dealer"].receive() == b"here"
                os.kill(pid, signal.SIGKILL)
                for link in (mesh["dealer"], theirs["dealer"]):
                    with pytest.raises(PeerLost, match="dealer"):
                        link.receive()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_taken_port_is_named_and_a_closed_one_is_free_again(host: str) -> None:
    listener = Listener(host)
    address = listener.address
    with pytest.raises(AddressInUse, match=f"{host} port {address[1]} is in use"):
        Listener(*address)
    listener.close()
    again = Listener(*address)
    assert again.address == address
    again.close()


@pytest.mark.parametrize("address", [("192.0.2.1", 0), ("127.0.0.1", 70000), ("127.0.0.1", -1), ("no.such.invalid", 0)])
def test_an_address_that_is_not_ours_is_named(address: Address) -> None:
    with pytest.raises(AddressUnusable, match=f"cannot listen on {address[0]} port {address[1]}: "):
        Listener(*address)
