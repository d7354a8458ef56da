"""Bytes through the network interfaces that this process sees, as totals that never fall."""

import threading
from collections.abc import Callable, Mapping

import psutil

Counted = Mapping[str, tuple[int, int]]  # of each interface: bytes sent, bytes received


def kernel_counters() -> Counted:
    """What the kernel has counted since each interface of this network namespace came up."""
    counters = psutil.net_io_counters(pernic=True, nowrap=False)
    return {name: (counter.bytes_sent, counter.bytes_recv) for name, counter in counters.items()}


class InterfaceTotals:
    """The sum over all interfaces, without the steps that the sum of the kernel's counters takes.

    An interface that goes (a neighbour's lab is taken down) would make that sum fall, which Prometheus takes for a
    restart and draws as a spike. Here only growth is added up: what went through an interface stays counted after it.

    Args:
        read: Reads the counters; they begin at 0 with each interface.
    """

    def __init__(self, read: Callable[[], Counted] = kernel_counters) -> None:
        self._kernel = read
        self._lock = threading.Lock()  # the exporter, a run and its progress ask from threads of their own
        self._last: Counted = {}
        self._total = (0, 0)

    def read(self) -> tuple[int, int]:
        """Bytes sent and received until now."""
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
    """What an interface counted between two readings; one that counts less than before was made anew."""
    if now[0] < before[0] or now[1] < before[1]:
        return now
    return now[0] - before[0], now[1] - before[1]


INTERFACES = InterfaceTotals()
"""The totals of this process, shared by all who ask."""
