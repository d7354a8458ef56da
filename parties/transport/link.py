"""Framed TCP between two parties. Everything that crosses from one party to another goes through a `Link`."""

import json
import select
import socket
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from parties.errors import CorruptFrame, OutOfStep, PartyError, PeerLost, PeerTimeout
from parties.metering.background import BackgroundAccount
from parties.metering.meter import StageMeter
from parties.transport.connection import Connection, Stalled
from parties.transport.fixed_frames import FixedFrames
from parties.transport.frame import (
    HEADER_BYTES,
    NUMBERS,
    Damaged,
    IncomingFrame,
    Unexpected,
    bytes_of,
    header,
    tensor_bytes,
)

if TYPE_CHECKING:
    import torch
    from _typeshed import ReadableBuffer
    from torch import Tensor

    from parties.transport.tls import TlsSocket

MAX_FRAME_BYTES = 1 << 32  # default limit of the payload


class Link:
    """A connection to one peer. At most one thread at a time may send and one may receive; the two may differ.

    Calls return when their bytes have been handed to the kernel or have arrived. Each call is counted on the current
    stage of `meter`, or on the given account, which is that of a background thread. After any exception the connection
    is closed, since the next frame would begin in the middle of the last one; the peer then gets `PeerLost` at once.

    Args:
        sock: A connected TCP socket, or a TLS session on one; the link takes ownership.
        peer: The role at the other end.
        meter: Counts bytes (with framing), messages, rounds and blocked seconds.
        timeout_s: Seconds without a byte sent or received before `PeerTimeout`.
        max_frame_bytes: The longest payload that is sent or accepted.
    """

    def __init__(
        self,
        sock: "socket.socket | TlsSocket",
        peer: str,
        meter: StageMeter,
        timeout_s: float,
        max_frame_bytes: int = MAX_FRAME_BYTES,
    ) -> None:
        self.peer = peer
        self._connection = Connection(sock, timeout_s)
        self._meter = meter
        self._max_frame_bytes = max_frame_bytes
        self._sent_frames = 0
        self._received_frames = 0

    @property
    def fileno(self) -> int:
        """The file descriptor of the socket."""
        return self._connection.fileno

    @property
    def timeout_s(self) -> float:
        """Seconds without a byte sent or received before `PeerTimeout`."""
        return self._connection.timeout_s

    @property
    def sent_bytes(self) -> int:
        """Bytes sent so far, with framing."""
        return self._connection.sent_bytes

    @property
    def received_bytes(self) -> int:
        """Bytes received so far, with framing."""
        return self._connection.received_bytes

    def renew(self, sock: "socket.socket | TlsSocket") -> None:
        """Takes a new connection to the same peer and closes the former one; no call may be under way.

        Args:
            sock: As for a new link.
        """
        self.close()
        self._connection = Connection(sock, self.timeout_s)
        self._sent_frames = self._received_frames = 0

    def await_peer(self) -> None:
        """Waits without a timeout until the peer has sent something; for phases in which the peer only computes.

        The driver of the parties bounds this wait. TCP keep-alive detects a host that vanishes.

        Raises:
            PeerLost: The connection is closed or reset.
        """
        try:
            self._connection.await_bytes()
        except OSError as error:
            self.close()
            raise PeerLost(*self._so_far(self._meter)) from error

    def send(self, buffer: "ReadableBuffer", account: BackgroundAccount | None = None) -> None:
        """Sends one frame; half a round.

        Args:
            buffer: The payload.
            account: Account on which the call is counted instead of the current stage.

        Raises:
            PeerLost: The connection is closed or reset.
            PeerTimeout: No byte moved for `timeout_s`.
            ValueError: The buffer is longer than `max_frame_bytes`.
        """
        self._transfer(self._frame(buffer), None, rounds=0.5, account=account)

    def receive(self, account: BackgroundAccount | None = None, *, at_most: int | None = None) -> bytearray:
        """Receives one frame; half a round.

        Args:
            account: Account on which the call is counted instead of the current stage.
            at_most: The longest expected payload in bytes; `max_frame_bytes` if unknown. A longer one is refused by
                its header, before memory is allocated for it.

        Raises:
            PeerLost: The connection is closed or reset.
            PeerTimeout: No byte moved for `timeout_s`.
            OutOfStep: The frame does not have the next sequence number, or is too long.
            CorruptFrame: The frame was damaged in transit.
        """
        incoming = IncomingFrame(partial(self._check_bounded, at_most), None)
        self._transfer([], incoming, rounds=0.5, account=account)
        return incoming.payload

    def exchange(self, buffer: "ReadableBuffer", *, alike: bool = False) -> bytearray:
        """Sends one frame and receives one concurrently; one round.

        Args:
            buffer: The payload.
            alike: Whether the payload of the peer must have the same length; otherwise it may have any length.

        Raises:
            PeerLost, PeerTimeout, OutOfStep, CorruptFrame, ValueError: As in `send` and `receive`.
        """
        expected = partial(self._check_exact, bytes_of(buffer).nbytes) if alike else partial(self._check_bounded, None)
        incoming = IncomingFrame(expected, None)
        self._transfer(self._frame(buffer), incoming, rounds=1.0)
        return incoming.payload

    def swap(self, frames: FixedFrames) -> None:
        """Exchanges a frame for one of the same length, over memory that exists; one round.

        Args:
            frames: The frames, with the payload to send.

        Raises:
            PeerLost, PeerTimeout, OutOfStep, CorruptFrame: As in `exchange`.
        """
        meter, connection, done = self._meter, self._connection, False
        sent, received = connection.sent_bytes, connection.received_bytes
        meter.marks += ((meter.clock(), None, self.peer, 0),)
        try:
            self._sent_frames += 1
            frames.swap(connection, self._sent_frames - 1, self._received_frames)
            self._received_frames += 1
            done = True
        except Unexpected as frame:
            self._check_exact(frames.size - HEADER_BYTES, *frame.args)
        except (Damaged, Stalled, OSError) as error:
            raise self._failure(error, meter) from error
        finally:
            if not done:
                self.close()
                sent, received = connection.sent_bytes - sent, connection.received_bytes - received
                meter.count(self.peer, sent=sent, received=received)
        meter.marks += ((meter.clock(), None, "", frames.size),)

    def send_tensor(self, tensor: "Tensor") -> None:
        """Sends the elements of a tensor in row-major order, without its shape and dtype; half a round."""
        self.send(tensor_bytes(tensor.cpu()))

    def receive_tensor(self, shape: Sequence[int], dtype: "torch.dtype") -> "Tensor":
        """Receives a CPU tensor of known shape and dtype; half a round.

        Raises:
            OutOfStep: Also if the frame does not have the length of such a tensor.
        """
        import torch  # see `tensor_bytes`

        tensor = torch.empty(tuple(shape), dtype=dtype)
        self.receive_into(tensor)
        return tensor

    def receive_into(self, tensor: "Tensor") -> None:
        """Receives the elements of a contiguous CPU tensor into its memory; half a round.

        Raises:
            OutOfStep: Also if the frame does not have the length of the tensor.
        """
        self._transfer([], self._into(tensor), rounds=0.5)

    def exchange_tensor(self, tensor: "Tensor") -> "Tensor":
        """Sends a tensor and concurrently receives one of the same shape, dtype and device; one round."""
        theirs = tensor.new_empty(tensor.shape, device="cpu")
        self._transfer(self._frame(tensor_bytes(tensor.cpu())), self._into(theirs), rounds=1.0)
        return theirs.to(tensor.device)

    def send_json(self, value: Any) -> None:
        """Sends a value as JSON; half a round."""
        self.send(json.dumps(value).encode())

    def receive_json(self, *, at_most: int | None = None) -> Any:
        """Receives a value sent by `send_json`; half a round.

        Args:
            at_most: As in `receive`.

        Raises:
            OutOfStep: Also if the frame is not JSON.
        """
        payload = self.receive(at_most=at_most)
        try:
            return json.loads(payload)
        except (ValueError, RecursionError):
            self.close()
            raise self._out_of_step("JSON", f"{len(payload)} bytes of something else") from None

    def close(self) -> None:
        """Closes the connection, which the peer detects immediately. Thread-safe; a running call raises `PeerLost`."""
        self._connection.close()

    def _frame(self, buffer: "ReadableBuffer") -> list[memoryview]:
        payload = bytes_of(buffer)
        if len(payload) > self._max_frame_bytes:
            raise ValueError(f"a frame holds at most {self._max_frame_bytes} bytes, not {len(payload)}; send parts")
        return [memoryview(header(payload, self._sent_frames)), payload]

    def _into(self, tensor: "Tensor") -> IncomingFrame:
        room = tensor_bytes(tensor)
        return IncomingFrame(partial(self._check_exact, len(room)), room)

    def _transfer(
        self,
        outgoing: list[memoryview],
        incoming: IncomingFrame | None,
        *,
        rounds: float,
        account: BackgroundAccount | None = None,
    ) -> None:
        """Sends a frame, receives a frame, or does both concurrently, and counts the call."""
        meter, connection = account or self._meter, self._connection
        sending, receiving, done = bool(outgoing), incoming is not None, False
        sent, received = connection.sent_bytes, connection.received_bytes
        meter.begin_call(self.peer)
        try:
            self._sent_frames += sending
            connection.move(outgoing, incoming)
            self._received_frames += receiving
            done = True
        except (Damaged, Stalled, OSError) as error:
            raise self._failure(error, meter) from error
        finally:
            if not done:
                self.close()
            meter.count(
                self.peer,
                sent=connection.sent_bytes - sent if sending else 0,
                received=connection.received_bytes - received if receiving else 0,
                messages=sending + receiving if done else 0,
                rounds=rounds if done else 0.0,
            )

    def _failure(self, error: Exception, meter: StageMeter | BackgroundAccount) -> PartyError:
        so_far = self._so_far(meter)
        if isinstance(error, Damaged):
            return CorruptFrame(*so_far, self._received_frames, str(error))
        return PeerTimeout(*so_far, self.timeout_s) if isinstance(error, Stalled) else PeerLost(*so_far)

    def _so_far(self, meter: StageMeter | BackgroundAccount) -> tuple[str, str, int, int]:
        return self.peer, meter.current, self.sent_bytes, self.received_bytes

    def _check_bounded(self, at_most: int | None, length: int, number: int) -> None:
        most = self._max_frame_bytes if at_most is None else min(at_most, self._max_frame_bytes)
        self._check(length, number, length <= most, f"at most {most}")

    def _check_exact(self, expected: int, length: int, number: int) -> None:
        self._check(length, number, length == expected, f"{expected}")

    def _check(self, length: int, number: int, fits: bool, expected: str) -> None:
        following = self._received_frames % NUMBERS
        if not fits or number != following:
            raise self._out_of_step(f"frame {following} of {expected} bytes", f"frame {number} of {length} bytes")

    def _out_of_step(self, expected: str, got: str) -> OutOfStep:
        return OutOfStep(self.peer, self._meter.current, expected, got)


def await_any(links: Sequence[Link], timeout_s: float) -> list[Link]:
    """The links on which bytes have arrived or that were closed, after at most `timeout_s` seconds of waiting."""
    poll = select.poll()
    by_file = {link.fileno: link for link in links}
    for number in by_file:
        poll.register(number, select.POLLIN | select.POLLRDHUP)
    return [by_file[number] for number, _ in poll.poll(timeout_s * 1000)]
