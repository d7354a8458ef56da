"""The tc commands that shape one host's egress, as data: what is shown is what is run."""

import math
from collections.abc import Sequence

from netem.flows import Flow, Ports, queue_bytes, queue_packets
from netem.profile import Link

Command = tuple[str, ...]

# Handles of classes and children are counted up from the root's.
HANDLE_STEP = 0x40
_MOST_FLOWS = HANDLE_STEP - 1
# HTB needs a rate; this one is beyond any device, so a link without a rate has its delay and nothing else.
_UNLIMITED_KBIT = 400_000_000
_FRAME = 1514
_BURST_S = 0.001


def commands(device: str, handle: int, flows: Sequence[Flow]) -> tuple[Command, ...]:
    """An HTB root, and for each flow a class with the rate, a netem child with the rest, and filters for its packets.

    Packets of no flow pass HTB's direct queue at the device's own speed. Every value is stated: a value left out is not
    zero but whatever the kernel had before.

    Args:
        device: The interface that leads to the receivers.
        handle: Major number of the root qdisc, a multiple of `HANDLE_STEP`; names it as ours.
        flows: All from this host.

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
    """Take back all of `commands`; the kernel refuses if the root is another."""
    return ("tc", "qdisc", "del", "dev", device, "root", "handle", f"{handle:x}:")


def needs_netem(link: Link) -> bool:
    """Whether a link asks for more than a rate, which HTB alone gives."""
    return bool(link.delay_ms or link.jitter_ms or link.loss_pct)


def _rate(link: Link) -> Command:
    kbit = _kbit(link) or _UNLIMITED_KBIT
    # What may pass at once: a millisecond of the rate, and never less than two full frames.
    burst = max(2 * _FRAME, math.ceil(kbit * 1e3 / 8 * _BURST_S))
    rate = f"{kbit}kbit"
    return ("rate", rate, "ceil", rate, "burst", f"{burst}b", "cburst", f"{burst}b", "quantum", "60000")


def _child(link: Link) -> Command:
    if not needs_netem(link):
        return ("bfifo", "limit", f"{queue_bytes(link)}b")
    delay = ("delay", f"{round(link.delay_ms * 1e3)}us", f"{round(link.jitter_ms * 1e3)}us")
    distribution = ("distribution", "normal") if link.jitter_ms else ()
    # With a rate of its own netem keeps packets in order under jitter; without one it lets them overtake.
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
