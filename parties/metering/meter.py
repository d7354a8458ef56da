"""The stage meter: attributes the seconds, bytes and rounds of a party to stages. Source of all numbers of a run."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from parties.metering.background import BackgroundAccount
from parties.metering.readings import Counts, Histogram, StageReading
from parties.metering.registry import BY_NAME
from parties.metering.stage_stack import Stage, StageStack
from parties.metering.stages import IDLE, STAGES, phase_of

# Upper bounds in seconds; the last bucket of each is open.
TOKEN_BUCKETS = tuple(digit * 10.0**power for power in range(-3, 3) for digit in (1, 2, 5))
STEP_BUCKETS = (1e-3, 3e-3, 10e-3, 30e-3, 100e-3, 300e-3, 1.0, 3.0, 10.0, 30.0)


class StageMeter:
    """Attributes every second and byte of a party to the stage in which it was spent.

    Stages nest; the seconds of a stage exclude those of the stages inside it, and time outside every stage is
    `bench.idle`, so the seconds of all stages sum to the wall time since `reset`. One thread enters stages; any thread
    may read.

    Args:
        clock: Seconds from any origin, monotonic.

    Attributes:
        clock: As given.
        marks: What the thread that enters stages adds moments to, in order, where entering a stage or counting a call
            takes too long. Each says what holds from then on, see `Mark`; it is accounted for at the next call of the
            meter. The stage is one from `stage`, and takes the place of the innermost one, which must come back.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._stack = StageStack(clock)
        self.clock, self.marks = clock, self._stack.marks
        idle = Stage(IDLE, self._stack)
        self._stack.stages.append(idle)
        self._stages = {IDLE: idle}
        self._steps: dict[str, Histogram] = {}
        self._durations: dict[str, Histogram] = {}
        self._added: dict[str, float] = {}
        self._put: dict[str, float | Callable[[], float]] = {}
        self._restart()

    def stage(self, name: str) -> Stage:
        """Returns a context manager; time and counts inside it belong to stage `name`.

        Raises:
            ValueError: `name` is neither one of `STAGES` nor begins with `offline.`, `setup.` or `bench.`.
        """
        return self._stages.get(name) or self._open_account(name)

    def _open_account(self, name: str) -> Stage:
        if name not in STAGES and phase_of(name) == "online":
            raise ValueError(
                f"stage {name!r} is unknown; use one of {', '.join(STAGES)}, offline.*, setup.* or bench.*"
            )
        with self._stack.lock:
            return self._stages.setdefault(name, Stage(name, self._stack))

    @contextmanager
    def rehearsal(self, stage: str, changed: Callable[[], None]) -> Iterator[None]:
        """Stages are entered and left as usual meanwhile, but all time belongs to one stage.

        Args:
            stage: That stage.
            changed: Called after each change of the innermost stage.
        """
        with self.stage(stage):
            self._stack.settle()
            self._stack.held, self._stack.changed = self.stage(stage), changed
            try:
                yield
            finally:
                self._stack.settle()
                self._stack.held, self._stack.changed = None, None

    def begin_call(self, peer: str) -> None:
        """Begins a call of the link to `peer`; until `count` ends it, the time counts as blocked on that peer."""
        stack = self._stack
        with stack.lock:
            stack.settle()
            stack.calling, stack.called_seconds = peer, 0.0

    def count(
        self,
        peer: str,
        *,
        sent: int = 0,
        received: int = 0,
        messages: int = 0,
        rounds: float = 0.0,
        blocked: float = 0.0,
    ) -> None:
        """Adds one call of the link to `peer` to the current stage, and ends the call that `begin_call` began.

        Args:
            peer: Role at the other end of the link.
            sent: Bytes sent, with framing.
            received: Bytes received, with framing.
            messages: Frames sent and received.
            rounds: Rounds, 1 for an exchange and 0.5 for a one-way message.
            blocked: Wall seconds of the call that were not measured by `begin_call`.
        """
        stack = self._stack
        with stack.lock:
            if stack.calling or stack.marks:
                stack.settle()
                blocked_now, stack.calling = stack.called_seconds, ""
            else:
                blocked_now = 0.0
            tally = stack.stages[-1].tally(peer)
            tally.sent_bytes += sent
            tally.received_bytes += received
            tally.messages += messages
            tally.rounds += rounds
            tally.blocked_seconds += blocked
            if rounds >= 1:
                stack.times(peer).observe(blocked + blocked_now)

    def add_kernel_seconds(self, seconds: float) -> None:
        """Adds seconds in which a GPU computed for the current stage."""
        with self._stack.lock:
            if self._stack.marks:
                self._stack.take_marks()
            self._stack.stages[-1].kernel_seconds += seconds

    def background_account(self, stage: str) -> BackgroundAccount:
        """An account for the link calls of a background thread."""
        return BackgroundAccount(self.count_background, stage)

    def count_background(self, stage: str, peer: str, counts: Counts) -> None:
        """Adds a link call of a background thread to a stage, independent of the current one."""
        with self._stack.lock:
            self.stage(stage).tally(peer).add(counts)
            self.stage(stage).used = True

    def add(self, name: str, count: float = 1) -> None:
        """Adds to a counter of the registry that the caller maintains, such as repeats.

        Raises:
            KeyError: The registry has no such metric.
        """
        with self._stack.lock:
            self._added[BY_NAME[name].name] = self._added.get(name, 0.0) + count

    def put(self, name: str, value: float | Callable[[], float] | None) -> None:
        """Sets a gauge of the registry that the caller maintains, such as the size of a cache; None removes it.

        A function is called at each reading, in any thread.

        Raises:
            KeyError: The registry has no such metric.
        """
        with self._stack.lock:
            self._put.pop(BY_NAME[name].name, None)
            if value is not None:
                self._put[name] = value

    def numbers(self) -> Mapping[str, float]:
        """The values from `add` and `put`, by metric name."""
        with self._stack.lock:
            put = dict(self._put)
            numbers = dict(self._added)
        return numbers | {name: value() if callable(value) else value for name, value in put.items()}

    def observe(self, name: str, seconds: float) -> None:
        """Counts a duration in a histogram of the registry that the caller maintains, such as the time to a token.

        Raises:
            KeyError: The registry has no such metric.
        """
        with self._stack.lock:
            self._durations.setdefault(BY_NAME[name].name, Histogram(TOKEN_BUCKETS)).observe(seconds)

    def durations(self) -> dict[str, Histogram]:
        """The durations from `observe` since the meter was created, by metric name."""
        with self._stack.lock:
            return {name: times.copy() for name, times in self._durations.items()}

    @property
    def current(self) -> str:
        """The name of the innermost open stage."""
        with self._stack.lock:
            if self._stack.marks:
                self._stack.take_marks()
            return self._stack.stages[-1].name

    def seconds(self, stage: str) -> float:
        """The seconds of a stage since `reset`, the open part included."""
        with self._stack.lock:
            self._stack.settle()
            known = self._stages.get(stage)
            return 0.0 if known is None else known.seconds

    def snapshot(self) -> tuple[StageReading, ...]:
        """One reading per stage entered since `reset`, including the time of open stages so far."""
        with self._stack.lock:
            self._stack.settle()
            return tuple(stage.reading() for stage in self._stages.values() if stage.used)

    def lifetime(self) -> tuple[StageReading, ...]:
        """One reading per stage ever entered, over all resets; all its numbers are monotonic."""
        with self._stack.lock:
            self._stack.settle()
            return tuple(stage.lifetime() for stage in self._stages.values() if stage.used or stage.past)

    def begin_steps(self) -> None:
        """Marks the beginning of the first decoding step."""
        for stage, _ in self._since_last_step():
            stage.step_mark = stage.seconds

    def end_step(self) -> None:
        """Ends a decoding step and begins the next: the time of each stage since the last call is one duration."""
        for stage, seconds in self._since_last_step():
            if seconds > 0:
                self._steps.setdefault(stage.name, Histogram(STEP_BUCKETS)).observe(seconds)
                stage.step_mark = stage.seconds

    def _since_last_step(self) -> Iterator[tuple[Stage, float]]:
        with self._stack.lock:
            self._stack.settle()
            for stage in self._stages.values():
                yield stage, stage.seconds - stage.step_mark

    def step_times(self) -> dict[str, Histogram]:
        """For each stage, its durations within decoding steps since the meter was created."""
        with self._stack.lock:
            return {stage: times.copy() for stage, times in self._steps.items()}

    def exchange_times(self) -> dict[str, Histogram]:
        """For each peer, the blocked times of exchanges (calls of at least one round) since the meter was created."""
        with self._stack.lock:
            return {peer: times.copy() for peer, times in self._stack.exchanges.items()}

    def reset(self) -> None:
        """Resets all accounts to zero; open stages stay open, and `lifetime` continues."""
        with self._stack.lock:
            self._stack.settle()
            for stage in self._stages.values():
                stage.past = stage.lifetime() if stage.used or stage.past else None
            self._restart()

    def _restart(self) -> None:
        for stage in self._stages.values():
            stage.clear()
        for stage in self._stack.stages:
            stage.used = True
        self._stack.mark = self._stack.clock()
