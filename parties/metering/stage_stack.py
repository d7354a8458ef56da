"""The open stages of a meter: a stack, whose innermost stage gets all the time that passes."""

import threading
from bisect import bisect_left
from collections.abc import Callable
from types import TracebackType

from parties.metering.readings import Histogram, StageReading, Tally
from parties.metering.stages import phase_of

EXCHANGE_BUCKETS = (
    50e-6, 100e-6, 200e-6, 500e-6, 1e-3, 2e-3, 5e-3, 10e-3, 20e-3, 50e-3, 100e-3, 200e-3, 500e-3, 1.0,
)  # fmt: skip
"""Upper bounds of the time of an exchange in seconds, 1-2-5, from a round trip on loopback to more than one by
satellite; the last bucket is open."""

Mark = tuple[float, "Stage | None", str, int]
"""A moment of the clock, and what holds from then on: the innermost stage, or None if it stays, and the peer on which
the thread is blocked, or an empty string. The number is the size of the exchange that ended then, or 0."""


class StageStack:
    """The open stages and the clock: all time goes to the innermost open stage, and to the link call in progress.

    Args:
        clock: Seconds from any origin, monotonic.

    Attributes:
        lock: Held by whoever reads or changes the stack or an account.
        clock: As given.
        stages: The open stages, the innermost one last.
        mark: The moment up to which all time is accounted for.
        marks: See `StageMeter.marks`.
        calling: The peer of the link call in progress; an empty string if there is none.
        called_seconds: Seconds of that call so far.
        exchanges: For each peer the times of exchanges.
        changed: Called after a stage is entered or left; None for nothing.
        held: The stage that gets all time, whichever is the innermost one; None if none does.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        # reentrant: the garbage collector may close a generator, and with it its stage, at any point
        self.lock = threading.RLock()
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

    def __init__(self, name: str, stack: StageStack) -> None:
        self.name = name
        self.stack = stack
        self.past: StageReading | None = None
        self.clear()

    def clear(self) -> None:
        """Sets the account to zero."""
        self.seconds = self.compute_seconds = self.kernel_seconds = self.step_mark = 0.0
        self.peers: dict[str, Tally] = {}
        self.used = False

    def tally(self, peer: str) -> Tally:
        """The counts with a peer."""
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
        """The account so far."""
        peers = {peer: tally.reading() for peer, tally in self.peers.items()}
        phase, seconds = phase_of(self.name), (self.seconds, self.compute_seconds, self.kernel_seconds)
        return StageReading.of(self.name, phase, *seconds, peers)

    def lifetime(self) -> StageReading:
        """The reading since the stage was created, over all resets."""
        return self.reading() if self.past is None else self.past.followed_by(self.reading())
