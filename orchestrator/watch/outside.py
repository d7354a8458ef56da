"""Makes a driver in a lab reachable from its machine: the driver inherits sockets that were opened outside.

A socket belongs to the network in which it was opened. The lab's hosts are unreachable from outside, but the driver on
one of them serves sockets of the machine's loopback, and relays the metrics of the parties' exporters. None of this
traffic uses the shaped links.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from orchestrator.watch.targets import FOLDER_VARIABLE, targets_dir
from parties.address import listen

_METRICS, _PAGE = "MPCACHE_BENCH_METRICS_FD", "MPCACHE_BENCH_PAGE_FD"
_LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class InheritedSockets:
    """Sockets and variables that the driver in a lab is started with.

    Attributes:
        environment: Variables that name the sockets and the folder for target files.
        descriptors: The sockets, to be inherited.
        folder: The folder for target files, which the hosts must see.
    """

    environment: dict[str, str]
    descriptors: tuple[int, ...]
    folder: Path


@contextmanager
def inherited_sockets(page: socket.socket | None) -> Iterator[InheritedSockets]:
    """Opens the sockets that the driver in a lab inherits, for as long as the block lasts.

    Args:
        page: Listens where the live page is to be served, if it is.
    """
    with ExitStack() as stack:
        sockets = {_METRICS: stack.enter_context(listen(_LOOPBACK, 0))}
        if page is not None:
            sockets[_PAGE] = stack.enter_context(page)
        numbers = {name: listener.fileno() for name, listener in sockets.items()}
        environment = {name: str(number) for name, number in numbers.items()}
        environment[FOLDER_VARIABLE] = str(targets_dir())
        yield InheritedSockets(environment, tuple(numbers.values()), targets_dir())


def metrics_socket() -> socket.socket | None:
    """The inherited socket for metrics; None outside of a lab."""
    return _inherited(_METRICS)


def page_listener(host: str, port: int) -> socket.socket:
    """Listens for the live page: at the inherited socket, else at host and port.

    The page shows no secret; on loopback only this machine can read it.

    Args:
        host: Address to bind.
        port: Port to bind; 0 takes a free one.

    Raises:
        AddressInUse: The port is taken.
        AddressUnusable: The host is not an address of this machine, or the port may not be bound.
    """
    return _inherited(_PAGE) or listen(host, port)


def _inherited(variable: str) -> socket.socket | None:
    number = os.environ.pop(variable, None)  # for this process alone, not for those that it starts
    if number is None:
        return None
    listener = socket.socket(fileno=int(number))
    listener.set_inheritable(False)
    return listener
