import os
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from parties.errors import CorruptFrame, OutOfStep, PeerLost, PeerTimeout
from parties.metering.meter import StageMeter
from parties.transport.fixed_frames import FixedFrames
from parties.transport.frame import HEADER_BYTES
from parties.transport.link import MAX_FRAME_BYTES, Link
from tests.helpers.metering import totals
from tests.helpers.waiting import PATIENCE_S
from tests.helpers.wires import announced, child, frame, later, link_and_wire, linked

MEGABYTES = 1 << 20


@pytest.mark.parametrize(
    "call",
    [
        lambda link: link.send(b"x"),
        Link.receive,
        lambda link: link.exchange(b"x"),
        Link.receive_json,
        lambda link: link.swap(FixedFrames(1)),
    ],
    ids=["send", "receive", "exchange", "receive_json", "swap"],
)
@pytest.mark.parametrize("end", ["closed by the peer", "reset by the peer", "half closed by the peer", "closed by us"])
def test_every_call_on_a_closed_connection_raises_peer_lost(call: Callable[[Link], object], end: str) -> None:
    with link_and_wire() as (link, wire, _):
        if end == "closed by us":
            link.close()
        elif end == "half closed by the peer":
            wire.shutdown(socket.SHUT_WR)
        else:
            if end == "reset by the peer":
                wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            wire.close()
        with pytest.raises(PeerLost, match="server"):
            call(link)
        with pytest.raises(PeerLost):
            call(link)


def test_a_peer_lost_in_the_middle_of_a_frame_is_reported_with_stage_and_bytes() -> None:
    with link_and_wire() as (link, wire, meter):
        wire.sendall(frame(0, b"all") + frame(1, b"only the first half")[: HEADER_BYTES + 4])
        link.receive()
        wire.close()
        with meter.stage("softmax"), pytest.raises(PeerLost) as caught:
            link.receive()
        error = caught.value
        assert (error.peer, error.stage, error.sent_bytes, error.received_bytes) == (
            "server",
            "softmax",
            0,
            2 * HEADER_BYTES + 7,
        )
        counts = totals(meter, "online")
        assert (counts.received_bytes, counts.messages, counts.rounds) == (HEADER_BYTES + 4, 0, 0)


@pytest.mark.parametrize("load", [b"", b"x" * (64 * MEGABYTES)], ids=["while receiving", "while sending"])
def test_a_killed_process_is_detected_at_once(load: bytes) -> None:
    with link_and_wire() as (link, wire, _):

        def peer() -> None:
            Link(wire, "client", StageMeter(), PATIENCE_S).exchange(b"here")
            signal.pause()

        with child(peer) as pid:
            wire.close()
            link.exchange(b"here")
            threading.Timer(0.2, os.kill, (pid, signal.SIGKILL)).start()
            with pytest.raises(PeerLost):
                link.exchange(load)
            assert os.waitpid(pid, 0)[0] == pid


@pytest.mark.parametrize("load", [b"", b"x" * (64 * MEGABYTES)], ids=["while receiving", "while sending"])
def test_a_stopped_process_is_a_timeout(load: bytes) -> None:
    with link_and_wire() as (link, wire, meter):

        def peer() -> None:
            Link(wire, "client", StageMeter(), PATIENCE_S).exchange(b"here")
            os.kill(os.getpid(), signal.SIGSTOP)

        with child(peer) as pid:
            wire.close()
            link.exchange(b"here")
            os.waitpid(pid, os.WUNTRACED)
            link._connection.timeout_s = 1.0
            with meter.stage("topk"), pytest.raises(PeerTimeout) as caught:
                link.exchange(load)
            error = caught.value
            assert (error.peer, error.stage, error.timeout_s) == ("server", "topk", 1.0)
            assert error.sent_bytes == link.sent_bytes < 64 * MEGABYTES
            assert error.received_bytes == HEADER_BYTES + 4


def test_a_peer_whose_host_vanished_is_a_timeout() -> None:
    tcp_repair, closed_without_a_word = 19, 1
    with link_and_wire(timeout_s=0.3) as (link, wire, _):
        try:
            wire.setsockopt(socket.IPPROTO_TCP, tcp_repair, closed_without_a_word)
        except OSError:
            pytest.skip("needs CAP_NET_ADMIN to close a connection without telling the other end")
        wire.close()
        with pytest.raises(PeerTimeout):
            link.receive()


@pytest.mark.slow
def test_a_slow_peer_is_not_a_timeout_as_long_as_bytes_move() -> None:
    with link_and_wire(timeout_s=5.0) as (link, wire, _):

        def trickle() -> None:
            for byte in frame(0, b"slow"):
                time.sleep(0.2)
                wire.sendall(bytes([byte]))

        far = later(trickle)
        assert link.receive() == b"slow"
        far.result(PATIENCE_S)


def test_closing_from_another_thread_ends_a_waiting_call() -> None:
    with linked() as (client, _, _, _):
        waiting = later(client.receive)
        time.sleep(0.1)
        client.close()
        with pytest.raises(PeerLost):
            waiting.result(PATIENCE_S)


def test_an_interrupt_propagates_and_closes_the_link() -> None:
    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with link_and_wire() as (link, wire, meter):
            wire.sendall(frame(0, b"whole") + frame(1, b"half")[: HEADER_BYTES + 2])
            link.receive()
            timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGUSR1))
            timer.start()
            with pytest.raises(KeyboardInterrupt):
                link.exchange(b"hello")
            timer.join()
            counts = totals(meter, "bench")
            assert (counts.sent_bytes, counts.received_bytes) == (HEADER_BYTES + 5, 2 * HEADER_BYTES + 7)
            assert (counts.messages, counts.rounds) == (1, 0.5)
            assert wire.recv(100) == frame(0, b"hello")
            assert wire.recv(100) == b""
            with pytest.raises(PeerLost):
                link.receive()
    finally:
        signal.signal(signal.SIGUSR1, before)


@given(length=st.integers(0, 70), number=st.integers(0, 2**33), known_length=st.none() | st.integers(0, 70))
@settings(max_examples=80, deadline=None)
def test_a_frame_is_accepted_only_if_number_and_length_are_right(
    length: int, number: int, known_length: int | None
) -> None:
    number %= 2**32
    right = number == 0 and (length <= 64 if known_length is None else length == known_length)
    with link_and_wire(max_frame_bytes=64) as (link, wire, meter):
        wire.sendall(frame(number, b"x" * length))
        if right:
            got: Any = (
                link.receive() if known_length is None else link.receive_tensor([known_length], torch.uint8).numpy()
            )
            assert memoryview(got) == b"x" * length
            return
        with pytest.raises(OutOfStep, match=rf"expected frame 0 of .* got frame {number} of {length} bytes"):
            link.receive() if known_length is None else link.receive_tensor([known_length], torch.uint8)
        assert totals(meter, "bench").received_bytes == HEADER_BYTES
        with pytest.raises(PeerLost):
            link.receive()


@given(payload=st.binary(max_size=60), known_length=st.booleans(), data=st.data())
@settings(max_examples=80, deadline=None)
def test_a_flipped_bit_anywhere_is_detected_and_named(payload: bytes, known_length: bool, data: st.DataObject) -> None:
    good, damaged = frame(0, b"good"), bytearray(frame(1, payload))
    bit = data.draw(st.integers(0, 8 * len(damaged) - 1))
    damaged[bit // 8] ^= 1 << bit % 8
    part = "header" if bit < 8 * HEADER_BYTES else "payload"
    with link_and_wire() as (link, wire, meter):
        wire.sendall(good + damaged)
        link.receive()
        words = rf"{part} of frame 1 from server was damaged .* in stage softmax, after 0 bytes sent and \d+ received"
        with meter.stage("softmax"), pytest.raises(CorruptFrame, match=words) as caught:
            link.receive_tensor([len(payload)], torch.uint8) if known_length else link.receive()
        assert caught.value.status == "party_died"
        assert (caught.value.number, caught.value.part) == (1, part)
        with pytest.raises(PeerLost):
            link.receive()


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        (frame(0, b"longer"), OutOfStep),
        (frame(0, b"old")[:HEADER_BYTES], OutOfStep),
        (frame(1, b"four"), OutOfStep),
        (frame(0, b"four")[:-1] + b"!", CorruptFrame),
        (bytes(HEADER_BYTES), CorruptFrame),
    ],
)
def test_a_fixed_frame_is_answered_by_one_of_its_length_and_number(sent: bytes, error: type[Exception]) -> None:
    with link_and_wire() as (link, wire, meter):
        wire.sendall(sent)
        with pytest.raises(error):
            link.swap(FixedFrames(4))
        counts = totals(meter, "bench")
        assert (counts.sent_bytes, counts.rounds) == (HEADER_BYTES + 4, 0)
        with pytest.raises(PeerLost):
            link.receive()


@given(st.binary(min_size=HEADER_BYTES, max_size=HEADER_BYTES))
@settings(max_examples=40, deadline=None)
def test_an_invalid_header_is_reported_as_damage(noise: bytes) -> None:
    with link_and_wire() as (link, wire, _):
        wire.sendall(noise)
        with pytest.raises(CorruptFrame, match="header of frame 0"):
            link.receive()


def test_one_thread_sends_while_another_receives_and_each_is_counted_for_itself() -> None:
    with linked() as (client, server, meter, _):
        account = meter.background_account("offline.material")
        hearing = later(lambda: [len(client.receive(account)) for _ in range(200)])
        listening = later(lambda: [len(server.receive()) for _ in range(200)])
        with meter.stage("softmax"):
            saying = later(lambda: [server.send(bytes(50_000)) for _ in range(200)])
            for _ in range(200):
                client.send(bytes(100))
        assert (sum(hearing.result(PATIENCE_S)), sum(listening.result(PATIENCE_S))) == (200 * 50_000, 200 * 100)
        saying.result(PATIENCE_S)
        stages = {stage.stage: stage for stage in meter.snapshot()}
        mine, dealt = stages["softmax"], stages["offline.material"]
        assert (mine.sent_bytes, mine.received_bytes) == (200 * (100 + HEADER_BYTES), 0)
        assert (dealt.sent_bytes, dealt.received_bytes) == (0, 200 * (50_000 + HEADER_BYTES))
        assert dealt.seconds == dealt.blocked_seconds == 0


def test_parties_out_of_step_are_detected_by_length_and_by_number() -> None:
    with linked() as (client, server, _, server_meter):
        client.send_tensor(torch.zeros(3))
        with server_meter.stage("rope"), pytest.raises(OutOfStep, match=r"client.*rope.*16 bytes.*12 bytes"):
            server.receive_tensor([4], torch.float32)
    with link_and_wire() as (link, wire, _):
        wire.sendall(frame(0, b"a") + frame(0, b"a"))
        link.receive()
        with pytest.raises(OutOfStep, match=r"frame 1 of .* frame 0"):
            link.receive()


def test_a_frame_that_is_too_long_is_refused_before_a_byte_is_sent() -> None:
    with linked(max_frame_bytes=10) as (client, server, _, _):
        with pytest.raises(ValueError, match="at most 10 bytes, not 11"):
            client.send(b"x" * 11)
        client.send(b"x" * 10)
        assert server.receive() == b"x" * 10


def test_the_largest_frame_is_bounded_by_default() -> None:
    with link_and_wire() as (link, wire, _):
        wire.sendall(announced(MAX_FRAME_BYTES + 1))
        with pytest.raises(OutOfStep, match=f"at most {MAX_FRAME_BYTES} bytes"):
            link.receive()


@pytest.mark.parametrize(
    "payload", [b"", b"{", b"\xff\xfe", b"[" * 100_000], ids=["empty", "truncated", "no text", "deep"]
)
def test_a_message_that_is_not_json_is_out_of_step(payload: bytes) -> None:
    with linked() as (client, server, _, _):
        client.send(payload)
        with pytest.raises(OutOfStep, match="expected JSON"):
            server.receive_json()
        with pytest.raises(PeerLost):
            client.receive()
