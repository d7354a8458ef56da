"""The tc commands for real hosts, to read or to run by hand."""

from collections.abc import Sequence

from netem.flows import Flow, Ports
from netem.prober import Address
from netem.profile import NetworkProfile
from netem.tc_plan import Command, commands, removal

HANDLE = 0x6D80


def by_hand(profile: NetworkProfile, hosts: Sequence[Address], device: str) -> dict[str, tuple[Command, ...]]:
    """The commands to run on each host, followed by the one that removes the rules.

    Args:
        profile: Requested links; positions in its pairs follow the order of the hosts.
        hosts: Address of each host and data port of its party.
        device: The interface between the hosts, the same on all.

    Returns:
        Commands by address of the host; empty for a host whose links are not shaped.
    """
    names = [address for address, _ in hosts]
    named = profile.named(names)
    plans = {}
    for src, src_port in hosts:
        flows = [
            Flow(src, dst, (Ports(src_port), Ports(dst_port)), named.link(src, dst))
            for dst, dst_port in hosts
            if dst != src and named.link(src, dst).shaped
        ]
        plans[src] = (*commands(device, HANDLE, flows), removal(device, HANDLE)) if flows else ()
    return plans
