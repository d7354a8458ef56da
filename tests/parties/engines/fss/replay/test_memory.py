"""Memory of recorded segments: what one needs while it is replayed, all have at the same place."""

import weakref
from typing import cast

from parties.decoding.program import Program
from parties.engines.fss.arithmetic.opening import Opener
from parties.engines.fss.randomness.constants import Constants
from parties.engines.fss.randomness.dealer_source import DealerSource
from parties.engines.fss.randomness.frames import FrameWriter
from parties.engines.fss.replay.inputs import Inputs
from parties.engines.fss.replay.recorder import SegmentRecorder
from parties.engines.keystream import Keystream
from parties.metering.meter import StageMeter
from parties.transport.link import Link

NUMBERS = 1000


def recorded(inputs: Inputs) -> SegmentRecorder:
    """The dealer's recording of a segment that deals numbers."""
    client, server = (Keystream(bytes([side]) * 32) for side in (1, 2))
    source = DealerSource(StageMeter(), client, server, *(FrameWriter(lambda _: None) for _ in range(2)))
    recorder = SegmentRecorder(source, inputs)

    def program() -> Program[None]:
        whole = source.mask((NUMBERS,)).share
        source.deal((NUMBERS,), lambda: whole + 1)
        return
        yield

    recorder.record(program())
    recorder.leave([])
    return recorder


def test_the_dealers_recordings_send_from_the_same_memory() -> None:
    inputs = Inputs()
    one, other = (recorded(inputs) for _ in range(2))
    for recorder in (one, other):
        made = recorder.bind(*recorder.end([]))
        assert made.memory_bytes < 8 * NUMBERS
        ((sent, _),) = recorder.sent
        assert sent.data_ptr() == inputs.dealt.made[0].data_ptr()
        for piece in (piece for stream in inputs.streams for piece in stream.made):
            piece[: 16 * NUMBERS] = 1
        for tape in made.tapes:
            tape.run()
        assert sent.tolist() == [int.from_bytes(b"\1" * 8) + 1] * NUMBERS


def test_recorded_rounds_of_a_size_share_their_frames() -> None:
    opener = Opener(cast("Link", None), StageMeter(), Constants())
    frames = opener.fixed_frames(8)
    assert opener.fixed_frames(8) is frames is not opener.fixed_frames(16)


def test_a_finished_recording_keeps_nothing_of_its_trace() -> None:
    recorder = recorded(Inputs())
    tracer = weakref.ref(recorder.tracer)
    recorder.bind(*recorder.end([]))
    assert tracer() is None
