"""Bytes through the network interfaces that are visible to this process, as totals that never decrease."""

import threading
from collections.abc import Callable, Mapping

import psutil

Counted = Mapping[str, tuple[int, int]]  # by interface: bytes sent, bytes received


def kernel_counters() -> Counted:
    """The kernel's counters for each interface of this network namespace, since it came up."""
    counters = psutil.net_io_counters(pernic=True, nowrap=False)
    return {name: (counter.bytes_sent, counter.bytes_recv) for name, counter in counters.items()}


class InterfaceTotals:
    """Monotonic totals over all interfaces.

    The plain sum of the kernel's counters decreases when an interface is removed (for instance when another lab is
    taken down), which Prometheus interprets as a restart and shows as a spike. This class adds up increases only, so
    the bytes of a removed interface stay counted.

    Args:
        read: Reads the counters, which start at 0 for each new interface.
    """

    def __init__(self, read: Callable[[], Counted] = kernel_counters) -> None:
        self._kernel = read
        self._lock = threading.Lock()  # the exporter, the run and its progress read in different threads
        self._last: Counted = {}
        self._total = (0, 0)

    def read(self) -> tuple[int, int]:
        """Total bytes sent and received so far."""
        with self._lock:
            now = self._kernel()
            growth = [_growth(self._last.get(name, (0, 0)), counted) for name, counted in now.items()]
            self._last = now
            self._total = (
                self._total[0] + sum(sent for sent, _ in growth),
                self._total[1] + sum(received for _, received in growth),
            )
            return self._total


def _growth(before: tuple[int, int], now: tuple[int, int]) -> tuple[int, int]:
    """Increase of a counter between two readings; an interface whose counter decreased was created anew."""
    if now[0] < before[0] or now[1] < before[1]:
        return now
    return now[0] - before[0], now[1] - before[1]


INTERFACES = InterfaceTotals()
"""The totals of this process, shared by all readers."""
