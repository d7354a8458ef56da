"""The byte counters of the kernel for an interface, to verify the counts of a program."""

from dataclasses import dataclass
from pathlib import Path

from netem.errors import NetemError


@dataclass(frozen=True)
class InterfaceBytes:
    """Bytes of an interface since it came up, including all headers; use the difference of two readings.

    Attributes:
        device: Name of the interface.
        sent: Bytes sent.
        received: Bytes received.
    """

    device: str
    sent: int
    received: int


def interface_bytes(device: str) -> InterfaceBytes:
    """Read the counters of an interface in this network namespace.

    Raises:
        NetemError: There is no such interface.
    """
    for line in Path("/proc/self/net/dev").read_text(encoding="utf-8").splitlines()[2:]:
        name, _, numbers = line.partition(":")
        if name.strip() == device:
            fields = numbers.split()
            return InterfaceBytes(device, sent=int(fields[8]), received=int(fields[0]))
    raise NetemError(f"device {device} does not exist; `ip link` lists the existing ones")


def device_towards(address: str) -> str:
    """Name of the interface on the route to an IPv4 address.

    Raises:
        NetemError: There is no route.
    """
    from pyroute2 import IPRoute  # slow to import, and neither prober nor proxy needs it
    from pyroute2.netlink.exceptions import NetlinkError

    with IPRoute() as ip:
        try:
            route = ip.route("get", dst=address)[0]
        except NetlinkError as error:
            raise NetemError(f"no route to {address}: {error}") from error
        index = route.get_attr("RTA_OIF")
        return str(ip.get_links(index)[0].get_attr("IFLA_IFNAME"))
