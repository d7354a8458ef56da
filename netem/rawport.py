"""A raw socket on one interface for whole frames, with segmentation offload (up to 64 KiB) and checksum offload."""

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

# The kernel prepends a virtio_net_hdr to each frame: flags, GSO type, length of all headers, bytes per segment, ...
_VNET = struct.Struct("<BBHHHH")
ETHERNET = _VNET.size
IP = ETHERNET + 14


class RawPort:
    """Receives and sends the frames of an interface unchanged.

    Args:
        device: Name of the interface.
    """

    __slots__ = ("_socket", "device", "refused")

    def __init__(self, device: str) -> None:
        self.device = device
        self.refused = 0
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)  # protocol 0: no frames before bind
        for option in (_PACKET_VNET_HDR, _PACKET_IGNORE_OUTGOING, _PACKET_QDISC_BYPASS):
            self._socket.setsockopt(_SOL_PACKET, option, 1)
        for option in (_SO_SNDBUFFORCE, _SO_RCVBUFFORCE):
            self._socket.setsockopt(socket.SOL_SOCKET, option, _BUFFER)
        self._socket.bind((device, _ETH_P_ALL))
        self._socket.setblocking(False)

    def fileno(self) -> int:
        """The file descriptor, for `select`."""
        return self._socket.fileno()

    def receive(self) -> bytes | None:
        """The next frame with its header, or None if there is none."""
        with contextlib.suppress(BlockingIOError):
            return self._socket.recv(_LARGEST)
        return None

    def send(self, frame: bytes) -> None:
        """Send a frame; a frame that the kernel refuses is dropped and counted, as on any interface."""
        try:
            self._socket.send(frame)
        except OSError:
            self.refused += 1


def wire_bytes(frame: bytes) -> int:
    """Size of a frame on the wire in bytes, with all headers in each segment (the kernel's qdisc_pkt_len)."""
    _, gso_type, header, segment, _, _ = _VNET.unpack_from(frame)
    size = len(frame) - ETHERNET
    if gso_type and segment:
        segments = -(-(size - header) // segment)
        size += (segments - 1) * header
    return size
