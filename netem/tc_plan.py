"""The tc commands that shape the egress of one host, as data: the same for a dry run and for execution."""

import math
from collections.abc import Sequence

from netem.flows import Flow, Ports, queue_bytes, queue_packets
from netem.profile import Link

Command = tuple[str, ...]

# Handles of classes and children follow the handle of the root.
HANDLE_STEP = 0x40
_MOST_FLOWS = HANDLE_STEP - 1
# HTB needs a rate; this one exceeds that of any device, so a link without a rate gets only its delay.
_UNLIMITED_KBIT = 400_000_000
_FRAME = 1514
_BURST_S = 0.001


def commands(device: str, handle: int, flows: Sequence[Flow]) -> tuple[Command, ...]:
    """An HTB root, and for each flow a class with the rate, a netem child with the rest, and filters for its packets.

    Packets that belong to no flow pass through the direct queue of HTB at the speed of the device. Every value is given
    explicitly: an omitted value is not zero but whatever the kernel had before.

    Args:
        device: The interface on the route to the receivers.
        handle: Major number of the root qdisc, a multiple of `HANDLE_STEP`; identifies it as ours.
        flows: Flows from this host.

    Raises:
        ValueError: More flows than handles.
    """
    if len(flows) > _MOST_FLOWS:
        raise ValueError(f"{len(flows)} flows are too many for one device; at most {_MOST_FLOWS}")
    root = f"{handle:x}:"
    lines: list[Command] = [("tc", "qdisc", "add", "dev", device, "root", "handle", root, "htb", "default", "0")]
    for number, flow in enumerate(flows, 1):
        of_class = f"{handle:x}:{number:x}"
        child = f"{handle + number:x}:"
        lines += [
            ("tc", "class", "add", "dev", device, "parent", root, "classid", of_class, "htb", *_rate(flow.link)),
            ("tc", "qdisc", "add", "dev", device, "parent", of_class, "handle", child, *_child(flow.link)),
        ]
        start = ("tc", "filter", "add", "dev", device, "parent", root, "protocol", "ip", "prio", "1", "u32")
        lines += [(*start, *match, "flowid", of_class) for match in _matches(flow)]
    return tuple(lines)


def removal(device: str, handle: int) -> Command:
    """The command that removes all rules of `commands`; the kernel refuses if the root qdisc is a different one."""
    return ("tc", "qdisc", "del", "dev", device, "root", "handle", f"{handle:x}:")


def needs_netem(link: Link) -> bool:
    """Whether a link requests more than a rate, which HTB provides alone."""
    return bool(link.delay_ms or link.jitter_ms or link.loss_pct)


def _rate(link: Link) -> Command:
    kbit = _kbit(link) or _UNLIMITED_KBIT
    # Burst: one millisecond at the rate, and at least two full frames.
    burst = max(2 * _FRAME, math.ceil(kbit * 1e3 / 8 * _BURST_S))
    rate = f"{kbit}kbit"
    return ("rate", rate, "ceil", rate, "burst", f"{burst}b", "cburst", f"{burst}b", "quantum", "60000")


def _child(link: Link) -> Command:
    if not needs_netem(link):
        return ("bfifo", "limit", f"{queue_bytes(link)}b")
    delay = ("delay", f"{round(link.delay_ms * 1e3)}us", f"{round(link.jitter_ms * 1e3)}us")
    distribution = ("distribution", "normal") if link.jitter_ms else ()
    # With its own rate netem keeps packets in order under jitter; without one it reorders them.
    rate = ("rate", f"{_kbit(link)}kbit") if link.rate_mbit else ()
    loss = ("loss", "random", f"{link.loss_pct:g}%")
    return ("netem", "limit", str(queue_packets(link)), *delay, *distribution, *loss, *rate)


def _kbit(link: Link) -> int:
    return round((link.rate_mbit or 0.0) * 1e3)


def _matches(flow: Flow) -> list[Command]:
    addresses = ("match", "ip", "src", f"{flow.src}/32", "match", "ip", "dst", f"{flow.dst}/32")
    tcp = ("match", "ip", "protocol", "6", "0xff")
    return [
        (*addresses, *tcp, "match", "ip", end, str(ports.first), _mask(ports))
        for ports in flow.ports
        for end in ("sport", "dport")
    ]


def _mask(ports: Ports) -> str:
    return f"{ports.mask:#06x}"
