"""The kernel's own byte counters of an interface, to hold against what a program says it has sent."""

from dataclasses import dataclass
from pathlib import Path

from netem.errors import NetemError


@dataclass(frozen=True)
class InterfaceBytes:
    """Bytes of an interface since it came up, with all headers below TCP; take the difference of two readings.

    Attributes:
        device: Its name.
        sent: Bytes sent.
        received: Bytes received.
    """

    device: str
    sent: int
    received: int


def interface_bytes(device: str) -> InterfaceBytes:
    """Read the counters of a device of this network namespace.

    Raises:
        NetemError: There is no such device.
    """
    for line in Path("/proc/self/net/dev").read_text(encoding="utf-8").splitlines()[2:]:
        name, _, numbers = line.partition(":")
        if name.strip() == device:
            fields = numbers.split()
            return InterfaceBytes(device, sent=int(fields[8]), received=int(fields[0]))
    raise NetemError(f"device {device} is not there; `ip link` lists those that are")


def device_towards(address: str) -> str:
    """Name of the interface through which packets to an IPv4 address leave.

    Raises:
        NetemError: There is no route.
    """
    from pyroute2 import IPRoute  # takes its time, and a prober or proxy has no need of it
    from pyroute2.netlink.exceptions import NetlinkError

    with IPRoute() as ip:
        try:
            route = ip.route("get", dst=address)[0]
        except NetlinkError as error:
            raise NetemError(f"no route to {address}: {error}") from error
        index = route.get_attr("RTA_OIF")
        return str(ip.get_links(index)[0].get_attr("IFLA_IFNAME"))
