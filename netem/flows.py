"""Packet flows: which packets belong to which link between parties."""

import math
from dataclasses import dataclass
from typing import Any, Self

from netem.profile import Link

# Queue capacity beyond the bytes in flight: two round trips, so that the overshoot of slow start is not lost.
_LEAST_QUEUE_S = 0.2
_UNLIMITED_MBIT = 10_000.0
_SMALL_PACKET = 1000
_LEAST_PACKETS = 100


@dataclass(frozen=True)
class Ports:
    """An aligned block of TCP ports.

    Attributes:
        first: First port of the block.
        mask: Mask of the bits that all ports of the block share; 65535 for a single port.
    """

    first: int
    mask: int = 0xFFFF

    @classmethod
    def block(cls, first: int, count: int) -> Self:
        """`count` ports from `first` on.

        Raises:
            ValueError: `count` is not a power of two, or `first` is not a multiple of it.
        """
        if count < 1 or count & (count - 1) or first % count or not 0 < first <= 0xFFFF:
            raise ValueError(f"{count} ports from {first} on are not a block; give a power of two and a multiple of it")
        return cls(first, 0x10000 - count)

    @property
    def all(self) -> range:
        """Every port of the block."""
        return range(self.first, self.first + 0x10000 - self.mask)


@dataclass(frozen=True)
class Flow:
    """All TCP packets from one address to another with one of the given ports at either end.

    Attributes:
        src: IPv4 address of the sender.
        dst: IPv4 address of the receiver.
        ports: Ports of the parties and of their probers.
        link: Requested rate, delay, jitter and loss.
    """

    src: str
    dst: str
    ports: tuple[Ports, ...]
    link: Link

    @classmethod
    def from_plain(cls, given: dict[str, Any]) -> Self:
        """The inverse of `dataclasses.asdict`."""
        ports = tuple(Ports(**block) for block in given["ports"])
        return cls(given["src"], given["dst"], ports, Link(**given["link"]))


def queue_bytes(link: Link) -> int:
    """Bytes that a link must hold: the bytes in flight, plus a queue of two round trips or 200 ms."""
    seconds = (link.delay_ms + 4 * link.jitter_ms) / 1e3
    seconds += max(4 * link.delay_ms / 1e3, _LEAST_QUEUE_S)
    return round((link.rate_mbit or _UNLIMITED_MBIT) * 1e6 / 8 * seconds)


def queue_packets(link: Link) -> int:
    """The same as a number of packets, since most packets are not full."""
    return max(_LEAST_PACKETS, math.ceil(queue_bytes(link) / _SMALL_PACKET))
