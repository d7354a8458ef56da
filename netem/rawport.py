"""A raw socket on one interface, through which whole frames pass: 64 KiB of TCP at once, checksums left to the end."""

import contextlib
import socket
import struct

_SOL_PACKET = 263
_PACKET_VNET_HDR = 15
_PACKET_QDISC_BYPASS = 20
_PACKET_IGNORE_OUTGOING = 23
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33
_ETH_P_ALL = 3
_BUFFER = 64 << 20
_LARGEST = 70_000

# Before each frame the kernel puts a virtio_net_hdr: flags, GSO type, length of all headers, bytes in a segment, ...
_VNET = struct.Struct("<BBHHHH")
ETHERNET = _VNET.size
IP = ETHERNET + 14


class RawPort:
    """Frames in and out of an interface, as they are.

    Args:
        device: Name of the interface.
    """

    __slots__ = ("_socket", "device", "refused")

    def __init__(self, device: str) -> None:
        self.device = device
        self.refused = 0
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)  # protocol 0: nothing comes before bind
        for option in (_PACKET_VNET_HDR, _PACKET_IGNORE_OUTGOING, _PACKET_QDISC_BYPASS):
            self._socket.setsockopt(_SOL_PACKET, option, 1)
        for option in (_SO_SNDBUFFORCE, _SO_RCVBUFFORCE):
            self._socket.setsockopt(socket.SOL_SOCKET, option, _BUFFER)
        self._socket.bind((device, _ETH_P_ALL))
        self._socket.setblocking(False)

    def fileno(self) -> int:
        """For `select`."""
        return self._socket.fileno()

    def receive(self) -> bytes | None:
        """The next frame with its header, or None if there is none."""
        with contextlib.suppress(BlockingIOError):
            return self._socket.recv(_LARGEST)
        return None

    def send(self, frame: bytes) -> None:
        """Send a frame; one that the kernel has no room for is lost and counted, as on any interface."""
        try:
            self._socket.send(frame)
        except OSError:
            self.refused += 1


def wire_bytes(frame: bytes) -> int:
    """What a frame takes on the wire: each of its segments has all headers (as the kernel's qdisc_pkt_len)."""
    _, gso_type, header, segment, _, _ = _VNET.unpack_from(frame)
    size = len(frame) - ETHERNET
    if gso_type and segment:
        segments = -(-(size - header) // segment)
        size += (segments - 1) * header
    return size
