import array
import socket
import time
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from parties.errors import PeerLost
from parties.metering.meter import StageMeter
from parties.transport.fixed_frames import FixedFrames
from parties.transport.frame import HEADER_BYTES
from parties.transport.link import Link
from tests.helpers.metering import totals
from tests.helpers.waiting import PATIENCE_S
from tests.helpers.wires import later, linked, tcp_pair

MEGABYTES = 1 << 20


@given(st.lists(st.tuples(st.sampled_from(["there", "back", "both"]), st.binary(max_size=300), st.binary(max_size=9))))
@settings(max_examples=40, deadline=None)
def test_frames_arrive_whole_and_in_order_and_both_ends_count_the_same(steps: list[tuple[str, bytes, bytes]]) -> None:
    def play(link: Link, forward: str) -> list[tuple[bytes, bytes]]:
        received = []
        for direction, one, other in steps:
            mine, theirs = (one, other) if forward == "there" else (other, one)
            if direction == "both":
                received.append((bytes(link.exchange(mine)), theirs))
            elif direction == forward:
                link.send(one)
            else:
                received.append((bytes(link.receive()), one))
        return received

    with linked() as (client, server, client_meter, server_meter):
        far = later(play, server, "back")
        for received in (play(client, "there"), far.result(PATIENCE_S)):
            assert all(got == sent for got, sent in received)
        here, there = totals(client_meter, "bench"), totals(server_meter, "bench")

    frames_out = [one for direction, one, _ in steps if direction != "back"]
    frames_in = [one for direction, one, _ in steps if direction == "back"]
    frames_in += [other for direction, _, other in steps if direction == "both"]
    assert (
        here.sent_bytes
        == there.received_bytes
        == client.sent_bytes
        == sum(map(len, frames_out)) + HEADER_BYTES * len(frames_out)
    )
    assert (
        here.received_bytes
        == there.sent_bytes
        == server.sent_bytes
        == sum(map(len, frames_in)) + HEADER_BYTES * len(frames_in)
    )
    assert here.messages == there.messages == len(frames_out) + len(frames_in)
    assert here.rounds == there.rounds == sum(1.0 if direction == "both" else 0.5 for direction, _, _ in steps)


@pytest.mark.parametrize("size", [0, 1, 300, 3 * MEGABYTES])
def test_frames_in_memory_that_stays_are_frames_like_others(size: int) -> None:
    rounds = [bytes([number]) * size for number in range(3)]
    with linked() as (client, server, meter, other):
        far = later(lambda: [bytes(server.exchange(payload, alike=True)) for payload in rounds])
        frames, got = FixedFrames(size), []
        for payload in reversed(rounds):
            frames.payload[:] = payload
            client.swap(frames)
            got.append(bytes(frames.received))
        assert far.result(PATIENCE_S) == rounds[::-1]
        assert got == rounds
        here, there = totals(meter, "bench"), totals(other, "bench")
        (waits,), (other_waits,) = (m.exchange_times().values() for m in (meter, other))
    assert (here.messages, here.rounds) == (there.messages, there.rounds) == (6, 3)
    assert here.sent_bytes == here.received_bytes == there.sent_bytes == 3 * (size + HEADER_BYTES)
    assert sum(waits.buckets) == sum(other_waits.buckets) == 3


def test_both_directions_of_64_megabytes_stream_at_once() -> None:
    ours = torch.arange(8 * MEGABYTES)
    theirs = ours * -7
    with linked() as (client, server, meter, _):
        far = later(server.exchange_tensor, theirs)
        assert torch.equal(client.exchange_tensor(ours), theirs)
        assert torch.equal(far.result(PATIENCE_S), ours)
        counts = totals(meter, "bench")
    assert counts.sent_bytes == counts.received_bytes == 64 * MEGABYTES + HEADER_BYTES
    assert (counts.messages, counts.rounds) == (2, 1)


BUFFERS = {
    "bytes": b"abc",
    "bytearray": bytearray(b"abc"),
    "empty": b"",
    "array": array.array("d", [1.0, 2.0]),
    "every other byte": memoryview(b"abcdef")[::2],
    "reversed": memoryview(b"abc")[::-1],
    "matrix": np.arange(6, dtype=np.int16).reshape(2, 3),
    "transposed": np.arange(6, dtype=np.int64).reshape(2, 3).T,
    "no rows": np.zeros((0, 3)),
}


@pytest.mark.parametrize("buffer", BUFFERS.values(), ids=BUFFERS)
def test_any_buffer_goes_in_its_logical_order(buffer: Any) -> None:
    with linked() as (client, server, _, _):
        client.send(buffer)
        assert bytes(server.receive()) == memoryview(buffer).tobytes()


TENSORS = {
    "int64": torch.arange(6).view(2, 3),
    "uint8": torch.arange(6, dtype=torch.uint8),
    "bool": torch.tensor([True, False, True]),
    "half": torch.randn(3, 2).half(),
    "bfloat16": torch.randn(2, 2).bfloat16(),
    "complex": torch.randn(3, dtype=torch.complex64),
    "conjugate view": torch.randn(3, dtype=torch.complex64).conj(),
    "imaginary part": torch.randn(3, dtype=torch.complex64).conj().imag,
    "scalar": torch.tensor(5),
    "no elements": torch.zeros(2, 0, 3),
    "transposed": torch.arange(6).view(2, 3).T,
    "every other row": torch.arange(12.0).view(4, 3)[::2],
    "expanded": torch.tensor([1.0, 2.0]).expand(3, 2),
    "channels last": torch.randn(1, 2, 3, 4).to(memory_format=torch.channels_last),
    "needs a gradient": torch.randn(3, requires_grad=True),
}


@pytest.mark.parametrize("tensor", TENSORS.values(), ids=TENSORS)
def test_tensors_of_any_dtype_and_layout_arrive_the_same(tensor: torch.Tensor) -> None:
    with linked() as (client, server, _, _):
        client.send_tensor(tensor)
        received = server.receive_tensor(tensor.shape, tensor.dtype)
        far = later(server.exchange_tensor, received)
        returned = client.exchange_tensor(tensor)
        far.result(PATIENCE_S)
    for copy in (received, returned):
        assert copy.dtype == tensor.dtype
        assert torch.equal(copy, tensor)


@pytest.mark.gpu
def test_a_tensor_exchanged_from_a_gpu_is_received_on_it() -> None:
    tensor = torch.arange(5, device="cuda")
    with linked() as (client, server, _, _):
        far = later(server.exchange_tensor, tensor + 1)
        assert torch.equal(client.exchange_tensor(tensor), tensor + 1)
        assert far.result(PATIENCE_S).device == tensor.device


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=3)
    ),
)


@given(json_values)
@settings(max_examples=40, deadline=None)
def test_json_goes_there_and_back(value: Any) -> None:
    with linked() as (client, server, _, _):
        client.send_json(value)
        assert server.receive_json() == value


def test_calls_are_counted_on_the_stage_they_were_made_in() -> None:
    with linked() as (client, server, client_meter, server_meter):
        with client_meter.stage("offline.seeds"):
            client.send(b"seed")
        with client_meter.stage("softmax"):
            client.send(b"more")
        with server_meter.stage("topk"):
            server.receive()
            server.receive()
    assert totals(client_meter, "offline").sent_bytes == totals(client_meter, "online").sent_bytes == HEADER_BYTES + 4
    readings = {reading.stage: reading for reading in server_meter.snapshot()}
    assert readings["topk"].peers["client"].received_bytes == 2 * (HEADER_BYTES + 4)


def test_waiting_for_the_peer_is_blocked_time() -> None:
    with linked() as (client, server, meter, _):

        def answer() -> None:
            server.receive()
            time.sleep(0.2)
            server.send(b"late")

        far = later(answer)
        client.exchange(b"question")
        far.result(PATIENCE_S)
    assert totals(meter, "bench").blocked_seconds >= 0.2


def test_a_small_message_is_not_held_back() -> None:
    near, far = tcp_pair()
    with near, far:
        Link(near, "server", StageMeter(), 1.0)
        assert near.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_message_sent_just_before_closing_is_still_received() -> None:
    with linked() as (client, server, _, _):
        client.send(b"x" * 1000)
        client.close()
        assert len(server.receive()) == 1000
        with pytest.raises(PeerLost):
            server.receive()
