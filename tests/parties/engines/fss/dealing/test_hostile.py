"""Messages that the protocol does not allow are refused by name, before any memory is allocated for them."""

import pytest
import torch

from parties.decoding.program import run
from parties.engines.fss.arithmetic import gates
from parties.engines.fss.arithmetic.opening import Opener
from parties.engines.fss.cost.simulation import Simulation, share
from parties.engines.fss.dealing import receiver
from parties.engines.fss.dealing.receiver import CreditExceeded, Receiver
from parties.engines.fss.dealing.stored_receiver import StoredReceiver
from parties.engines.fss.randomness.constants import Constants
from parties.engines.fss.randomness.frames import (
    FRAME_BYTES,
    LONGEST_BYTES,
    MARK_BYTES,
    FrameReader,
    RandomnessOutOfStep,
)
from parties.errors import OutOfStep, PeerLost
from parties.transport.link import Link
from tests.helpers.wires import announced, later, link_and_wire, linked

HUGE = 3 << 30
"""A payload for which no memory is allocated: only its header is sent."""


def test_randomness_beyond_the_credit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiver, "AHEAD_BYTES", 3000)
    with linked() as (party, dealer, meter, _):
        taking = Receiver(party, meter)
        assert dealer.receive_json() == {"do": "credit", "upto": 3000}
        for _ in range(4):  # three fill the room, and the fourth has none
            dealer.send(bytes(1000))
        with pytest.raises(PeerLost):
            dealer.receive()
        with pytest.raises(CreditExceeded, match=r"beyond its credit of 3000 bytes"):
            taking.next()


@pytest.mark.parametrize("length", [LONGEST_BYTES + 1, HUGE])
@pytest.mark.parametrize("way", ["streamed", "stored"])
def test_a_frame_that_is_too_long_is_refused_by_its_header(length: int, way: str) -> None:
    assert LONGEST_BYTES == FRAME_BYTES + MARK_BYTES
    with link_and_wire() as (party, wire, meter):
        taking = Receiver(party, meter) if way == "streamed" else StoredReceiver(party, meter)
        wire.sendall(announced(length))
        with pytest.raises(OutOfStep, match=rf"of at most {LONGEST_BYTES} bytes, got frame 0 of {length} bytes"):
            taking.next() if isinstance(taking, Receiver) else taking.fetch()


@pytest.mark.parametrize("frame", [b"1234567", bytes(MARK_BYTES)], ids=["half a mark", "a mark alone"])
def test_a_frame_without_payload_is_refused(frame: bytes) -> None:
    reader = FrameReader(lambda: frame)
    reader.begin(1)
    with pytest.raises(RandomnessOutOfStep, match=f"a frame of {len(frame)} bytes holds no correlated randomness"):
        reader.take((1,), "u1")


@pytest.mark.parametrize("length", [0, 31, 33, HUGE])
def test_an_opening_of_another_length_is_refused_by_its_header(length: int) -> None:
    client = Simulation().client
    with link_and_wire() as (peer, wire, meter):
        opening = gates.open_(share(client, torch.zeros(3), 1.0))
        opened = later(run, opening, Opener(peer, meter, Constants()))
        wire.sendall(announced(length))
        with pytest.raises(OutOfStep, match=rf"expected frame 0 of 32 bytes, got frame 0 of {length} bytes"):
            opened.result(30)


def test_a_link_accepts_no_frame_beyond_its_limit() -> None:
    with link_and_wire() as (link, wire, _):
        wire.sendall(announced(HUGE))
        with pytest.raises(OutOfStep, match="at most 100 bytes"):
            Link.receive_json(link, at_most=100)
