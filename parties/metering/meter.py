"""The stage meter: attributes the seconds, bytes and rounds of a party to stages. Source of all numbers of a run."""

import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType

from parties.metering.background import BackgroundAccount
from parties.metering.readings import Counts, Histogram, StageReading, Tally
from parties.metering.registry import BY_NAME

__all__ = ["Counts", "Histogram", "StageMeter", "StageReading", "phase_of"]

STAGES = (
    "embed", "norm", "qkv", "rope", "similarity", "topk", "gather", "scores", "softmax", "attend",
    "out_proj", "gate_up", "activation", "down", "lm_head", "argmax", "draft", "evict",
)  # fmt: skip
PHASES = ("online", "offline", "setup", "bench")
IDLE = "bench.idle"
RECORDING = "setup.recording"
"""The stage in which an engine records a segment of a token, to replay it in later tokens."""

# Upper bounds in seconds, 1-2-5, from a round trip on loopback to more than one by satellite; the last bucket is open.
EXCHANGE_BUCKETS = (
    50e-6, 100e-6, 200e-6, 500e-6, 1e-3, 2e-3, 5e-3, 10e-3, 20e-3, 50e-3, 100e-3, 200e-3, 500e-3, 1.0,
)  # fmt: skip
TOKEN_BUCKETS = tuple(digit * 10.0**power for power in range(-3, 3) for digit in (1, 2, 5))
STEP_BUCKETS = (1e-3, 3e-3, 10e-3, 30e-3, 100e-3, 300e-3, 1.0, 3.0, 10.0, 30.0)


def phase_of(stage: str) -> str:
    """The phase of a stage: the prefix of `offline.*`, `setup.*` (once per model) and `bench.*`, else `online`."""
    prefix, dot, _ = stage.partition(".")
    return prefix if dot and prefix in PHASES[1:] else "online"


Mark = tuple[float, "Stage | None", str, int]
"""A moment of the clock, and what holds from then on: the innermost stage, or None if it stays, and the peer on which
the thread is blocked, or an empty string. The number is the size of the exchange that ended then, or 0."""


class _Stack:
    """The open stages and the clock: all time goes to the innermost open stage, and to the link call in progress."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.lock = (
            threading.RLock()
        )  # reentrant: the garbage collector may close a generator, and with it its stage, at any point
        self.clock = clock
        self.stages: list[Stage] = []
        self.mark = clock()
        self.marks: list[Mark] = []
        self.calling = ""
        self.called_seconds = 0.0
        self.exchanges: dict[str, Histogram] = {}
        self.changed: Callable[[], None] | None = None
        self.held: Stage | None = None

    def settle(self) -> None:
        """Adds the time since the last call to the innermost stage; the caller holds the lock."""
        if self.marks:
            self.take_marks()
        now = self.clock()
        passed, self.mark = now - self.mark, now
        stage = self.held or self.stages[-1]
        stage.seconds += passed
        if self.calling:
            self.called_seconds += passed
            stage.tally(self.calling).blocked_seconds += passed
        else:
            stage.compute_seconds += passed

    def take_marks(self) -> None:
        """Does what the marks say, in one go and without further calls; the caller holds the lock."""
        marks = self.marks[:]  # their thread may add to them meanwhile
        del self.marks[: len(marks)]
        stage = self.held or self.stages[-1]
        for moment, following, peer, size in marks:
            passed = moment - self.mark if moment > self.mark else 0.0  # another thread may have settled since
            self.mark += passed
            stage.seconds += passed
            if self.calling:
                self.called_seconds += passed
                tally = stage.peers[self.calling] if self.calling in stage.peers else stage.tally(self.calling)
                tally.blocked_seconds += passed
                if size:
                    tally.sent_bytes += size
                    tally.received_bytes += size
                    tally.messages += 2
                    tally.rounds += 1.0
                    times = self.exchanges[self.calling] if self.calling in self.exchanges else self.times(self.calling)
                    times.buckets[bisect_left(EXCHANGE_BUCKETS, self.called_seconds)] += 1
                    times.seconds += self.called_seconds
            else:
                stage.compute_seconds += passed
            if following is not None:
                self.stages[-1] = stage = following
                stage.used = True
            self.calling, self.called_seconds = peer, 0.0

    def times(self, peer: str) -> Histogram:
        """Returns the histogram of the exchanges with a peer."""
        return self.exchanges.setdefault(peer, Histogram(EXCHANGE_BUCKETS))


class Stage:
    """The account of one stage, and the context manager that enters and leaves it."""

    __slots__ = ("compute_seconds", "kernel_seconds", "name", "past", "peers", "seconds", "stack", "step_mark", "used")

    def __init__(self, name: str, stack: _Stack) -> None:
        self.name = name
        self.stack = stack
        self.past: StageReading | None = None
        self.clear()

    def clear(self) -> None:
        self.seconds = self.compute_seconds = self.kernel_seconds = self.step_mark = 0.0
        self.peers: dict[str, Tally] = {}
        self.used = False

    def tally(self, peer: str) -> Tally:
        if peer not in self.peers:
            self.peers[peer] = Tally()
        return self.peers[peer]

    def __enter__(self) -> None:
        stack = self.stack
        with stack.lock:
            stack.settle()
            stack.stages.append(self)
            self.used = self.used or stack.held is None
        if stack.changed is not None:
            stack.changed()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        stack = self.stack
        with stack.lock:
            stack.settle()
            if stack.stages[-1] is self:
                stack.stages.pop()
            elif kind is None:
                raise RuntimeError(f"stage {self.name} was left while {stack.stages[-1].name} is the innermost one")
            elif self in stack.stages:  # an exception may close interleaved generators in any order
                while stack.stages.pop() is not self:
                    pass
        if stack.changed is not None:
            stack.changed()

    def reading(self) -> StageReading:
        peers = {peer: tally.reading() for peer, tally in self.peers.items()}
        phase, seconds = phase_of(self.name), (self.seconds, self.compute_seconds, self.kernel_seconds)
        return StageReading.of(self.name, phase, *seconds, peers)

    def lifetime(self) -> StageReading:
        """The reading since the stage was created, over all resets."""
        return self.reading() if self.past is None else self.past.followed_by(self.reading())


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
        self._stack = _Stack(clock)
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
