"""Which interface leads to an address."""

from netem.errors import NetemError


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
