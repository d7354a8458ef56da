"""Our own prober: round-trip time and throughput of one direction, over TCP on the path that the data takes.

A measurement is a connection from the source to a `ProbeServer` at the destination. Its first byte says what follows:
`E`, and the server echoes every byte; or `S`, then the warm-up in milliseconds (4 bytes), and the server counts what
arrives after the warm-up until the source stops, and answers with bytes and nanoseconds (8 bytes each).
"""

import contextlib
import math
import socket
import statistics
import struct
import threading
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from netem.errors import ProbeError

Address = tuple[str, int]

_PING = b"p" * 64
_BLOCK = bytes(256 << 10)
_WARM_UP = struct.Struct("!I")
_COUNTED = struct.Struct("!QQ")
_TIMEOUT_S = 30.0
_UNSENT = 1 << 20  # what a slow, lossy link may have to carry after the time is up; megabytes would outlast the timeout


@dataclass(frozen=True)
class Measured:
    """What one direction of a link was measured to be.

    Attributes:
        rtt_ms: Median round-trip time of 64-byte messages on the otherwise idle link, in milliseconds.
        rtt_p99_ms: Its 99th percentile, in milliseconds.
        rtt_samples: Number of round trips.
        rate_mbit: TCP payload that arrived, in 10^6 bits a second, after slow start.
        congestion_control: Of the sending socket, such as `cubic` or `bbr`.
    """

    rtt_ms: float
    rtt_p99_ms: float
    rtt_samples: int
    rate_mbit: float
    congestion_control: str


class ProbeServer:
    """Answers probes on a TCP port, from threads of its own, until closed.

    Args:
        host: Address to bind, the one that the data port is on.
        port: Port to bind; 0 takes a free one.
    """

    def __init__(self, host: str, port: int = 0) -> None:
        self._socket = socket.create_server((host, port), backlog=16)
        self.address: Address = self._socket.getsockname()[:2]
        threading.Thread(target=self._accept, name="probe-server", daemon=True).start()

    def close(self) -> None:
        """Stop listening; probes under way end by themselves."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes the thread in accept
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=_answer, args=(connection,), name="probe", daemon=True).start()


def measure_link(address: Address, seconds: float = 0.5) -> Measured:
    """Measure the link from this host to a `ProbeServer`.

    Args:
        address: Where the server listens, or what is forwarded to it.
        seconds: Time to measure throughput for, after a warm-up that grows with the round-trip time.

    Raises:
        ProbeError: Nothing answers, or not with what a prober answers.
    """
    try:
        trips = measure_rtt(address)
        rtt_s = statistics.median(trips)
        # Slow start doubles its window every round trip: after ten it has filled any pipe that the presets know.
        rate, congestion_control = _measure_rate(address, max(0.2, 10 * rtt_s), max(seconds, 4 * rtt_s))
    except (OSError, struct.error) as error:
        raise ProbeError(f"no probe of {address[0]} port {address[1]}: {error or type(error).__name__}") from error
    return Measured(rtt_s * 1e3, _p99(trips) * 1e3, len(trips), rate, congestion_control)


def measure_rtt(address: Address, samples: int = 50, seconds: float = 1.0) -> list[float]:
    """Round-trip times to a `ProbeServer`, in seconds.

    Args:
        address: Where the server listens.
        samples: Most round trips to take.
        seconds: When to stop, though never before five round trips.
    """
    with _connect(address) as connection:
        connection.sendall(b"E")
        _ping(connection)  # the first one pays for set-up at every hop
        trips: list[float] = []
        stop = time.perf_counter() + seconds
        while len(trips) < samples and (len(trips) < 5 or time.perf_counter() < stop):
            trips.append(_ping(connection))
            time.sleep(0.001)  # an idle link is what is measured
    return trips


def _measure_rate(address: Address, warm_up_s: float, seconds: float) -> tuple[float, str]:
    with _connect(address) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT)
        connection.sendall(b"S" + _WARM_UP.pack(round(warm_up_s * 1e3)))
        stop = time.perf_counter() + warm_up_s + seconds
        while time.perf_counter() < stop:
            connection.send(_BLOCK)
        connection.shutdown(socket.SHUT_WR)
        count, nanoseconds = _COUNTED.unpack(_receive(connection, _COUNTED.size))
        name = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
    if not nanoseconds:
        raise OSError("nothing arrived after the warm-up")
    return count * 8e3 / nanoseconds, name.split(b"\0")[0].decode()


def _connect(address: Address) -> socket.socket:
    connection = socket.create_connection(address, timeout=_TIMEOUT_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _ping(connection: socket.socket) -> float:
    began = time.perf_counter()
    connection.sendall(_PING)
    _receive(connection, len(_PING))
    return time.perf_counter() - began


def _receive(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = connection.recv(size - len(data))
        if not piece:
            raise OSError("the other side closed the connection")
        data += piece
    return data


def _p99(values: list[float]) -> float:
    return sorted(values)[math.ceil(0.99 * len(values)) - 1]


def _answer(connection: socket.socket) -> None:
    """Serve one probe; a broken one ends quietly, for its other side reports the error."""
    with contextlib.suppress(OSError), connection:
        connection.settimeout(_TIMEOUT_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        match connection.recv(1):
            case b"E":
                while piece := connection.recv(4096):
                    connection.sendall(piece)
            case b"S":
                connection.sendall(_count(connection))


def _count(connection: socket.socket) -> bytes:
    """Bytes that arrive after the warm-up, and the time that they took."""
    (warm_up_ms,) = _WARM_UP.unpack(_receive(connection, _WARM_UP.size))
    buffer = bytearray(1 << 20)
    begin = 0
    last = 0
    count = 0
    ready = time.perf_counter_ns() + warm_up_ms * 1_000_000
    while size := connection.recv_into(buffer):
        last = time.perf_counter_ns()
        if begin:
            count += size
        elif last >= ready:
            begin = last
    return _COUNTED.pack(count, last - begin if begin else 0)
