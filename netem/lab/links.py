"""The cables and the bridge of a lab, through netlink."""

import errno
from collections.abc import Iterable
from pathlib import Path

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

_BRIDGE = "br0"
# Enough for 1 Gbit/s over 200 ms; with the default of 4 MiB the buffers would be the bottleneck of such a link.
_TCP_BUFFERS = {"tcp_wmem": "4096 65536 67108864", "tcp_rmem": "4096 131072 67108864"}


def cable(hub: int, port: str, host: int) -> None:
    """Connect two network namespaces, given by a process in each: `port` in the hub to `eth0` in the host."""
    with IPRoute() as ip:
        ip.link("add", ifname=port, kind="veth", net_ns_pid=hub, peer={"ifname": "eth0", "net_ns_pid": host})


def prepare() -> None:
    """In a new network namespace: set up loopback and TCP buffers, and disable IPv6, whose traffic would be counted."""
    for name, value in _TCP_BUFFERS.items():
        Path(f"/proc/sys/net/ipv4/{name}").write_text(value, encoding="ascii")
    disable_ipv6 = Path("/proc/sys/net/ipv6/conf/all/disable_ipv6")
    if disable_ipv6.exists():
        disable_ipv6.write_text("1", encoding="ascii")
    with IPRoute() as ip:
        ip.link("set", index=_index(ip, "lo"), state="up")


def plug_in(address: str, prefix: int) -> None:
    """On a host: bring up `eth0` with an address."""
    with IPRoute() as ip:
        index = _index(ip, "eth0")
        ip.addr("add", index=index, address=address, prefixlen=prefix)
        ip.link("set", index=index, state="up")


def switch_on(ports: Iterable[str]) -> bool:
    """On the hub: bring up the ports and a bridge between them.

    Returns:
        Whether there is a bridge: some kernels come without.
    """
    with IPRoute() as ip:
        for port in ports:
            ip.link("set", index=_index(ip, port), state="up")
        try:
            ip.link("add", ifname=_BRIDGE, kind="bridge")
        except NetlinkError as error:
            if error.code == errno.EOPNOTSUPP:
                return False
            raise
        ip.link("set", index=_index(ip, _BRIDGE), state="up")
    join_bridge(ports)
    return True


def join_bridge(ports: Iterable[str]) -> None:
    """On the hub: add the ports to the bridge; the port of a host that has ended no longer exists."""
    with IPRoute() as ip:
        for index in _indices(ip, ports):
            ip.link("set", index=index, master=_index(ip, _BRIDGE))


def leave_bridge(ports: Iterable[str]) -> None:
    """On the hub: remove the ports from the bridge, which stops all forwarding."""
    with IPRoute() as ip:
        for index in _indices(ip, ports):
            ip.link("set", index=index, master=0)


def _index(ip: IPRoute, name: str) -> int:
    return int(ip.link_lookup(ifname=name)[0])


def _indices(ip: IPRoute, names: Iterable[str]) -> list[int]:
    return [index for name in names for index in ip.link_lookup(ifname=name)]
