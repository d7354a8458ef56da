"""The lab's cables, by netlink."""

from collections.abc import Iterable
from pathlib import Path

from pyroute2 import IPRoute

_BRIDGE = "br0"
# Enough for 1 Gbit/s over 200 ms; the kernel's own 4 MiB would be the bottleneck of a long fat link, not the link.
_TCP_BUFFERS = {"tcp_wmem": "4096 65536 67108864", "tcp_rmem": "4096 131072 67108864"}


def cable(hub: int, port: str, host: int) -> None:
    """Connect two network namespaces, named by a process in each: `port` in the hub to `eth0` in the host."""
    with IPRoute() as ip:
        ip.link("add", ifname=port, kind="veth", net_ns_pid=hub, peer={"ifname": "eth0", "net_ns_pid": host})


def prepare() -> None:
    """In a new network namespace: loopback, TCP buffers, and no IPv6, whose chatter would be in the byte counters."""
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


def switch_on(ports: Iterable[str]) -> None:
    """On the hub: bring up the ports and a bridge between them."""
    with IPRoute() as ip:
        ip.link("add", ifname=_BRIDGE, kind="bridge")
        ip.link("set", index=_index(ip, _BRIDGE), state="up")
        for port in ports:
            ip.link("set", index=_index(ip, port), state="up")
    join_bridge(ports)


def join_bridge(ports: Iterable[str]) -> None:
    """On the hub: let the bridge carry what the ports receive; a port whose host is gone is gone too."""
    with IPRoute() as ip:
        for index in _indices(ip, ports):
            ip.link("set", index=index, master=_index(ip, _BRIDGE))


def leave_bridge(ports: Iterable[str]) -> None:
    """On the hub: take the ports from the bridge; nothing is carried until someone else does."""
    with IPRoute() as ip:
        for index in _indices(ip, ports):
            ip.link("set", index=index, master=0)


def _index(ip: IPRoute, name: str) -> int:
    return int(ip.link_lookup(ifname=name)[0])


def _indices(ip: IPRoute, names: Iterable[str]) -> list[int]:
    return [index for name in names for index in ip.link_lookup(ifname=name)]
