"""Measures round-trip time and throughput of one direction, over TCP on the path of the data.

A measurement is a connection from the source to a `ProbeServer` at the destination. Its first byte selects the mode.
After `E` the server echoes every byte. After `S` and the warm-up in milliseconds (4 bytes) the server counts the bytes
that arrive after the warm-up until the source stops, and replies with bytes and nanoseconds (8 bytes each).
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
_LEAST_BLOCK = 4 << 10
_BLOCK_S = 0.02  # a slow link gets blocks of what it carries in this time
_WARM_UP = struct.Struct("!I")
_COUNTED = struct.Struct("!QQ")
_SILENT_S = 30.0
_UNSENT = 1 << 20  # backlog that a slow, lossy link may carry after the end; megabytes would exceed the timeout

_TRIPS = 5  # minimum number of round trips
_LONG_S = 0.2  # round trips of at least this length are measured concurrently,
_APART_S = 0.02  # and started at this interval: all are in flight before the first returns
_LEAST_BYTES = 24 << 10  # minimum bytes for a throughput where the rate is known: some chunks of a back end
_FIRST_WINDOW = 14_600  # bytes that TCP sends before the first acknowledgement (RFC 6928)
_MOST_ROUNDS = 10  # rounds of slow start, which doubles its window in each; enough for the links of all presets
_LEAST_WARM_UP_S = 0.2  # for what a link's queue holds; one of unknown rate has none of ours
_LEAST_BLOCKS = 12  # sent after the warm-up however late the sender is: more than the other side receives at once
_FASTER = 1.25  # sending rate over requested rate: fills the link, and reveals a link that is too fast


@dataclass(frozen=True)
class Measured:
    """Measured values of one direction of a link.

    Attributes:
        rtt_ms: Median round-trip time of 64-byte messages on the otherwise idle link, in milliseconds.
        rtt_p99_ms: 99th percentile of the round-trip time, in milliseconds.
        rtt_samples: Number of round trips.
        rate_mbit: TCP payload received after slow start, in 10^6 bits per second.
        congestion_control: Congestion control of the sending socket, such as `cubic` or `bbr`.
    """

    rtt_ms: float
    rtt_p99_ms: float
    rtt_samples: int
    rate_mbit: float
    congestion_control: str


class ProbeServer:
    """Answers probes on a TCP port, in its own threads, until closed.

    Args:
        host: Address to bind, the same as that of the data port.
        port: Port to bind; 0 takes a free one.
    """

    def __init__(self, host: str, port: int = 0) -> None:
        self._socket = socket.create_server((host, port), backlog=16)
        self.address: Address = self._socket.getsockname()[:2]
        threading.Thread(target=self._accept, name="probe-server", daemon=True).start()

    def close(self) -> None:
        """Stop listening; running probes finish by themselves."""
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


@dataclass(frozen=True)
class Plan:
    """Durations of a probe of one direction, given its round-trip time.

    Args:
        rtt_s: Round-trip time in seconds.
        rate_mbit: Requested rate of the link, in 10^6 bits per second; None if unknown.
        least_s: Minimum time for the measurement of throughput, in seconds.
    """

    rtt_s: float
    rate_mbit: float | None
    least_s: float

    @property
    def bytes_per_second(self) -> float:
        """Requested rate of the link; infinity if unknown."""
        return math.inf if self.rate_mbit is None else self.rate_mbit * 1e6 / 8

    @property
    def warm_up_s(self) -> float:
        """Time for TCP to fill the link; bytes that arrive before are not counted."""
        windows = self.rtt_s * self.bytes_per_second / _FIRST_WINDOW if self.rtt_s else 0.0
        rounds = _MOST_ROUNDS if windows > 2**_MOST_ROUNDS else 1 + math.ceil(math.log2(max(1.0, windows)))
        return max(_LEAST_WARM_UP_S if self.rate_mbit else 0.0, min(rounds, _MOST_ROUNDS) * self.rtt_s)

    @property
    def counting_s(self) -> float:
        """Time in which bytes are counted: some round trips, unless they are very long, and some chunks."""
        trips = min(4 * self.rtt_s, max(1.0, self.rtt_s))
        return max(self.least_s, trips, _LEAST_BYTES / self.bytes_per_second)

    @property
    def sending_s(self) -> float:
        """Total time of sending."""
        return self.warm_up_s + self.counting_s

    @property
    def limit_s(self) -> float:
        """Time after which the whole probe has failed: its own duration plus half a minute of silence."""
        trips = 2 * self.rtt_s + max(1.0, self.rtt_s + _TRIPS * _APART_S)  # connect, first trip, other trips
        drained = 2 * self.rtt_s + _FASTER * self.sending_s  # connect again, send, drain, reply
        return _SILENT_S + trips + drained


def measure_link(
    address: Address, seconds: float = 0.5, rate_mbit: float | None = None, limit_s: float = _SILENT_S
) -> Measured:
    """Measure the link from this host to a `ProbeServer`.

    Args:
        address: Address of the server, or one that is forwarded to it.
        seconds: Time of the measurement of throughput, after a warm-up that grows with the round-trip time.
        rate_mbit: Requested rate of the link; somewhat more is sent. None sends as fast as possible.
        limit_s: Seconds to wait for the other side at any point.

    Raises:
        ProbeError: There is no response, or not that of a prober.
    """
    try:
        trips = measure_rtt(address, limit_s=limit_s)
        rtt_s = statistics.median(trips)
        rate, congestion_control = _measure_rate(address, Plan(rtt_s, rate_mbit, seconds), limit_s)
    except (OSError, struct.error) as error:
        raise ProbeError(f"no probe of {address[0]} port {address[1]}: {error or type(error).__name__}") from error
    return Measured(rtt_s * 1e3, _p99(trips) * 1e3, len(trips), rate, congestion_control)


def measure_rtt(address: Address, samples: int = 50, seconds: float = 1.0, limit_s: float = _SILENT_S) -> list[float]:
    """Round-trip times to a `ProbeServer`, in seconds.

    Args:
        address: Address of the server.
        samples: Maximum number of round trips.
        seconds: Time after which to stop, but never before five round trips.
        limit_s: Seconds to wait for a reply.
    """
    with _connect(address, limit_s) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(b"E")
        first = _ping(connection)  # includes the connection set-up at every hop
        if first >= _LONG_S:
            return _pings(connection)
        trips: list[float] = []
        stop = time.perf_counter() + seconds
        while len(trips) < samples and (len(trips) < _TRIPS or time.perf_counter() < stop):
            trips.append(_ping(connection))
            time.sleep(0.001)  # keeps the link idle
    return trips


def _measure_rate(address: Address, plan: Plan, limit_s: float) -> tuple[float, str]:
    with _connect(address, limit_s) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT)
        connection.sendall(b"S" + _WARM_UP.pack(round(plan.warm_up_s * 1e3)))
        _send(connection, plan)
        connection.shutdown(socket.SHUT_WR)
        count, nanoseconds = _COUNTED.unpack(_receive(connection, _COUNTED.size))
        name = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
    if not nanoseconds:
        raise OSError("nothing arrived after the warm-up")
    return count * 8e3 / nanoseconds, name.split(b"\0")[0].decode()


def _send(connection: socket.socket, plan: Plan) -> None:
    """Send for the time of a plan, at a limited rate, since the link must still carry the buffered bytes afterwards."""
    rate = _FASTER * plan.bytes_per_second
    block = _BLOCK[: max(_LEAST_BLOCK, round(min(len(_BLOCK), rate * _BLOCK_S)))]
    began, sent, counted = time.perf_counter(), 0, 0
    while (passed := time.perf_counter() - began) < plan.sending_s or counted < _LEAST_BLOCKS:
        ahead = sent / rate - passed
        if ahead > 0:
            time.sleep(min(ahead, max(plan.sending_s - passed, _BLOCK_S)))
        else:
            sent += connection.send(block)
            counted += passed > plan.warm_up_s


def _connect(address: Address, limit_s: float) -> socket.socket:
    return socket.create_connection(address, timeout=limit_s)


def _ping(connection: socket.socket) -> float:
    began = time.perf_counter()
    connection.sendall(_PING)
    _receive(connection, len(_PING))
    return time.perf_counter() - began


def _pings(connection: socket.socket) -> list[float]:
    """Round-trip times of some concurrent messages, for long links."""
    began = []
    for _ in range(_TRIPS):
        began.append(time.perf_counter())
        connection.sendall(_PING)
        time.sleep(_APART_S)
    trips = []
    for start in began:
        _receive(connection, len(_PING))
        trips.append(time.perf_counter() - start)
    return trips


def _receive(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        chunk = connection.recv(size - len(data))
        if not chunk:
            raise OSError("the other side closed the connection")
        data += chunk
    return data


def _p99(values: list[float]) -> float:
    return sorted(values)[math.ceil(0.99 * len(values)) - 1]


def _answer(connection: socket.socket) -> None:
    """Serve one probe; a broken probe ends silently, since the other side reports the error."""
    with contextlib.suppress(OSError), connection:
        connection.settimeout(_SILENT_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        match connection.recv(1):
            case b"E":
                while chunk := connection.recv(4096):
                    connection.sendall(chunk)
            case b"S":
                connection.sendall(_count(connection))


def _count(connection: socket.socket) -> bytes:
    """Bytes that arrive after the warm-up and the time that they took, packed as the reply."""
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
