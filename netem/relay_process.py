"""The process of the back end `relay`: a learning switch in user space that sends party traffic through lines.

It is for kernels without `sch_netem`. Run as `python -m netem.relay_process` in the network namespace that has the
ports. The first line of JSON on standard input is
`{"ports": ["h0", "h1"], "flows": [...], "compensation_ms": 0.1}`; any later line may give new `flows` and
`compensation_ms`. Each line is answered with a line of JSON: the counters so far, CPU seconds and scheduling policy.
Frames that belong to no flow pass immediately. The process exits at the end of its standard input.
"""

import ipaddress
import json
import os
import select
import sys
import time
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

from netem.flows import Flow, queue_bytes
from netem.line import Line
from netem.rawport import ETHERNET, IP, RawPort, wire_bytes
from netem.realtime import wake_on_time

_clock = time.perf_counter
_BATCH = 64

# Offsets in a frame with a 20-byte IPv4 header.
_DST_MAC = slice(ETHERNET, ETHERNET + 6)
_SRC_MAC = slice(ETHERNET + 6, ETHERNET + 12)
_KIND = slice(ETHERNET + 12, IP + 1)
_IPV4 = b"\x08\x00\x45"
_PROTOCOL = IP + 9
_TCP = 6
_ADDRESSES = slice(IP + 12, IP + 20)
_FROM_PORT = slice(IP + 20, IP + 22)
_TO_PORT = slice(IP + 22, IP + 24)


class RelayLine(Line):
    """A line with its queue of frames.

    Args:
        flow: The flow that the line carries.
        compensation_ms: See `Line`.

    Attributes:
        dropped: Number of frames dropped because the queue was full.
    """

    __slots__ = ("_limit", "dropped", "queue")

    def __init__(self, flow: Flow, compensation_ms: float) -> None:
        super().__init__(flow.link, compensation_ms)
        rate = flow.link.rate_mbit
        self._limit = queue_bytes(flow.link) / (rate * 1e6 / 8) if rate else float("inf")
        self.queue: deque[tuple[float, bytes, RawPort]] = deque()
        self.dropped = 0

    def enter(self, frame: bytes, port: RawPort) -> None:
        """Queue a frame that was received on a port, or drop it."""
        if self.backlog() > self._limit:
            self.dropped += 1
            return
        due = self.due(wire_bytes(frame))
        if due is not None:
            self.queue.append((due, frame, port))


class Relay:
    """A learning switch.

    Args:
        devices: Interfaces that are its ports.
    """

    def __init__(self, devices: Iterable[str]) -> None:
        self._ports = {port.fileno(): port for port in map(RawPort, devices)}
        self._known: dict[bytes, RawPort] = {}
        self._lines: dict[Flow, RelayLine] = {}
        self._by_sender: dict[bytes, RelayLine] = {}
        self._by_receiver: dict[bytes, RelayLine] = {}

    def set_flows(self, flows: Iterable[Flow], compensation_ms: float) -> None:
        """Replace the shaped flows; frames that are queued on earlier flows are delivered immediately."""
        for line in self._lines.values():
            self._release(line, float("inf"))
        self._lines = {flow: RelayLine(flow, compensation_ms) for flow in flows}
        self._by_sender.clear()
        self._by_receiver.clear()
        for flow, line in self._lines.items():
            hosts = ipaddress.ip_address(flow.src).packed + ipaddress.ip_address(flow.dst).packed
            for number in (port for block in flow.ports for port in block.all):
                key = hosts + number.to_bytes(2, "big")
                self._by_sender[key] = self._by_receiver[key] = line

    def counters(self) -> list[dict[str, Any]]:
        """Counters of each flow: bytes on the wire, frames lost on purpose, frames dropped by a full queue."""
        return [
            {"src": flow.src, "dst": flow.dst, "bytes": line.bytes, "lost": line.lost, "dropped": line.dropped}
            for flow, line in self._lines.items()
        ]

    def step(self, control: int) -> bool:
        """Deliver the frames that are due, sleep until the next one is due or arrives, and receive new frames.

        Returns:
            Whether the file descriptor `control` is readable.
        """
        now = _clock()
        for line in self._lines.values():
            self._release(line, now)
        heads = [line.queue[0][0] for line in self._lines.values() if line.queue]
        wait = max(0.0, min(heads) - _clock()) if heads else None
        ready = select.select([*self._ports, control], (), (), wait)[0]  # unlike epoll, its timeout is precise
        for descriptor in ready:
            if descriptor != control:
                self._take_in(self._ports[descriptor])
        return control in ready

    def _take_in(self, port: RawPort) -> None:
        for _ in range(_BATCH):
            frame = port.receive()
            if frame is None:
                return
            self._known[frame[_SRC_MAC]] = port
            line = self._line_of(frame)
            if line is None:
                self._deliver(frame, port)
            else:
                line.enter(frame, port)

    def _line_of(self, frame: bytes) -> RelayLine | None:
        if frame[_KIND] != _IPV4 or frame[_PROTOCOL] != _TCP:
            return None
        hosts = frame[_ADDRESSES]
        return self._by_receiver.get(hosts + frame[_TO_PORT]) or self._by_sender.get(hosts + frame[_FROM_PORT])

    def _release(self, line: RelayLine, now: float) -> None:
        queue = line.queue
        while queue and queue[0][0] <= now:
            _, frame, port = queue.popleft()
            self._deliver(frame, port)

    def _deliver(self, frame: bytes, source: RawPort) -> None:
        """Send to the port of the receiver; to all other ports if that is unknown or a broadcast address."""
        known = self._known.get(frame[_DST_MAC])
        for port in (known,) if known else self._ports.values():
            if port is not source:
                port.send(frame)


def main() -> None:
    """Read ports and flows, report when ready, and forward frames until the end of standard input."""
    relay: Relay | None = None
    scheduling = "other"
    control = sys.stdin.fileno()
    while True:
        line = os.read(control, 1 << 20)
        while line and not line.endswith(b"\n"):
            line += os.read(control, 1 << 20) or b"\n"
        if not line:
            return
        given: Mapping[str, Any] = json.loads(line)
        if relay is None:
            relay = Relay(given["ports"])
            scheduling = wake_on_time()
        answer = {"flows": relay.counters(), "cpu_seconds": time.process_time(), "scheduling": scheduling}
        if "flows" in given:
            relay.set_flows(map(Flow.from_plain, given["flows"]), given["compensation_ms"])
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
        while not relay.step(control):
            pass


if __name__ == "__main__":
    main()
