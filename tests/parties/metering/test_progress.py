"""Progress of a party: the times of its decoding steps."""

from parties.metering.meter import StageMeter
from parties.metering.progress import Progress
from parties.metering.stages import RECORDING


def test_the_part_of_a_step_that_recording_took_is_counted_with_the_step() -> None:
    now = [0.0]
    meter = StageMeter(lambda: now[0])
    state = Progress(meter, lambda: now[0])

    def record(seconds: float) -> None:
        with meter.stage(RECORDING):
            now[0] += seconds

    record(7.0)  # before decoding begins
    state.prefilled([4])
    for recorded in (2.0, 0.0, 3.0):
        record(recorded)
        now[0] += 1.0
        state.token([4], lambda cached: cached, numbers=2)
    assert state.pass_seconds == [3.0, 1.0, 4.0]
    assert state.recording_seconds == [2.0, 0.0, 3.0]
