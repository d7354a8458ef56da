"""Which packets are party traffic, and which link they are on."""

import math
from dataclasses import dataclass
from typing import Any, Self

from netem.profile import Link

# Room for what waits its turn, beyond what is under way: two round trips, so that slow start's overshoot is not lost.
_LEAST_QUEUE_S = 0.2
_UNLIMITED_MBIT = 10_000.0
_SMALL_PACKET = 1000
_LEAST_PACKETS = 100


@dataclass(frozen=True)
class Ports:
    """An aligned block of TCP ports.

    Attributes:
        first: Its first port.
        mask: Bits that a port shares with the first; 65535 for a single port.
    """

    first: int
    mask: int = 0xFFFF

    @classmethod
    def block(cls, first: int, count: int) -> Self:
        """`count` ports from `first` on.

        Raises:
            ValueError: The count is no power of two, or the first is no multiple of it.
        """
        if count < 1 or count & (count - 1) or first % count or not 0 < first <= 0xFFFF:
            raise ValueError(f"{count} ports from {first} on are no block; give a power of two and a multiple of it")
        return cls(first, 0x10000 - count)

    @property
    def all(self) -> range:
        """Every port of the block."""
        return range(self.first, self.first + 0x10000 - self.mask)


@dataclass(frozen=True)
class Flow:
    """All TCP packets from one address to another that have one of some ports at either end.

    Attributes:
        src: IPv4 address of the sender.
        dst: IPv4 address of the receiver.
        ports: Ports of the parties and of their probers.
        link: What the packets should experience.
    """

    src: str
    dst: str
    ports: tuple[Ports, ...]
    link: Link

    @classmethod
    def from_plain(cls, given: dict[str, Any]) -> Self:
        """A flow from what `dataclasses.asdict` made of one."""
        ports = tuple(Ports(**block) for block in given["ports"])
        return cls(given["src"], given["dst"], ports, Link(**given["link"]))


def queue_bytes(link: Link) -> int:
    """Bytes that a link must hold: those under way, and those waiting, for two round trips or 200 ms."""
    seconds = (link.delay_ms + 4 * link.jitter_ms) / 1e3
    seconds += max(4 * link.delay_ms / 1e3, _LEAST_QUEUE_S)
    return round((link.rate_mbit or _UNLIMITED_MBIT) * 1e6 / 8 * seconds)


def queue_packets(link: Link) -> int:
    """The same as a number of packets, most of which are not full."""
    return max(_LEAST_PACKETS, math.ceil(queue_bytes(link) / _SMALL_PACKET))
