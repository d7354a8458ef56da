"""What SPU's links carried: bytes by peer from the kernel, messages from SPU's own statistics."""

import os
import re
import socket
import struct

import spu

Bytes = tuple[int, int]
"""Sent and received, with all framing."""

_STATISTICS = re.compile(rb"Link details: .*send actions (\d+), recv actions (\d+)")
_RETRANSMITTED, _RECEIVED, _SENT = 208, 128, 200  # offsets in the kernel's struct tcp_info
_MARK = 1 << 16  # bytes by which a peer makes its connection known


class Link:
    """SPU's link to the other ranks.

    Args:
        rank: This worker's rank.
        addresses: For each rank `host:port`: its own to bind, the others' to dial.
        timeout_s: Seconds without a message after which SPU gives up.
    """

    def __init__(self, rank: int, addresses: list[str], timeout_s: float) -> None:
        described = spu.link.Desc()
        described.id = "mpcbench"
        described.recv_timeout_ms = described.http_timeout_ms = int(timeout_s * 1000)
        for number, address in enumerate(addresses):
            described.add_party(str(number), address)
        self.context = spu.link.create_brpc(described, rank)
        self._rank, self._size = rank, len(addresses)
        dialled = {address: number for number, address in enumerate(addresses)}
        far = {number: f"{host}:{port}" for number, (host, port) in _connections().items()}
        self._peers = {number: dialled[address] for number, address in far.items() if address in dialled}
        self._recognise()

    def _recognise(self) -> None:
        """Finds out which accepted connection is which peer's: each in turn makes its own grow."""
        for peer in range(self._size):
            self.context.barrier()
            before = {number: _carried(number)[1] for number in _connections()}
            self.context.barrier()
            if peer == self._rank:
                for other in range(self._size):
                    if other != peer:
                        self.context.send(other, "0" * _MARK)
                continue
            self.context.recv(peer)
            grown = {number: _carried(number)[1] - count for number, count in before.items()}
            self._peers[max(grown, key=lambda number: grown[number])] = peer
        self.context.barrier()

    def carried(self) -> dict[int, Bytes]:
        """Bytes sent to and received from each peer so far."""
        total = {peer: (0, 0) for peer in range(self._size) if peer != self._rank}
        for number, peer in self._peers.items():
            sent, received = _carried(number)
            total[peer] = (total[peer][0] + sent, total[peer][1] + received)
        return total


class Log:
    """SPU's log, a file that replaces standard output and error of this process; SPU tells its counts nowhere else."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        os.unlink(path)  # noqa: PTH108 - the file lives as long as its descriptor
        for standard in (1, 2):
            os.dup2(self._file, standard)

    def messages(self) -> tuple[int, int]:
        """Messages sent and received by what ran since the last call; the log is emptied."""
        size = os.fstat(self._file).st_size
        found = _STATISTICS.findall(os.pread(self._file, size, 0))
        os.ftruncate(self._file, 0)
        return sum(int(sent) for sent, _ in found), sum(int(received) for _, received in found)


def _connections() -> dict[int, tuple[str, int]]:
    """The far address of each TCP connection of this process, by file descriptor."""
    found = {}
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - descriptors are numbers
        number = int(name)
        try:
            if not os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):  # noqa: PTH115
                continue
            sock = socket.socket(fileno=os.dup(number))
        except OSError:
            continue
        with sock:
            try:
                if sock.family in (socket.AF_INET, socket.AF_INET6) and sock.type == socket.SOCK_STREAM:
                    host, port = sock.getpeername()[:2]
                    found[number] = host, port
            except OSError:  # it listens
                continue
    return found


def _carried(number: int) -> Bytes:
    with socket.socket(fileno=os.dup(number)) as sock:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    sent, retransmitted, received = (
        struct.unpack_from("=Q", info, offset)[0] for offset in (_SENT, _RETRANSMITTED, _RECEIVED)
    )
    return sent - retransmitted, received
