"""The tc commands for real hosts, to be read or run by hand."""

from collections.abc import Sequence

from netem.flows import Flow, Ports
from netem.prober import Address
from netem.profile import NetworkProfile
from netem.tc_plan import Command, commands, removal

HANDLE = 0x6D80


def by_hand(profile: NetworkProfile, hosts: Sequence[Address], device: str) -> dict[str, tuple[Command, ...]]:
    """What to run on each host, and last what takes it back.

    Args:
        profile: Positions in its pairs mean the order of the hosts.
        hosts: Address and data port of the party on each.
        device: The interface between them, the same on all.

    Returns:
        Commands by address of the host; none for a host that sends as it is.
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
