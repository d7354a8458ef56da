"""The stage meter: where a party's seconds, bytes and rounds go. Every number of a run is born here."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from types import TracebackType

from parties.metering.background import Aside
from parties.metering.readings import Counts, Histogram, StageReading
from parties.metering.registry import BY_NAME

__all__ = ["Counts", "Histogram", "StageMeter", "StageReading", "phase_of"]

STAGES = (
    "embed", "norm", "qkv", "rope", "similarity", "topk", "gather", "scores", "softmax", "attend",
    "out_proj", "gate_up", "activation", "down", "lm_head", "argmax", "evict",
)  # fmt: skip
PHASES = ("online", "offline", "setup", "bench")
IDLE = "bench.idle"

# Upper bounds in seconds, 1-2-5 from a loopback round trip to more than a satellite's; one more bucket has no bound.
EXCHANGE_BUCKETS = (
    50e-6, 100e-6, 200e-6, 500e-6, 1e-3, 2e-3, 5e-3, 10e-3, 20e-3, 50e-3, 100e-3, 200e-3, 500e-3, 1.0,
)  # fmt: skip
STEP_BUCKETS = (1e-3, 3e-3, 10e-3, 30e-3, 100e-3, 300e-3, 1.0, 3.0, 10.0, 30.0)


def phase_of(stage: str) -> str:
    """The phase of a stage: the prefix of `offline.*`, `setup.*` (once a model) and `bench.*`, else `online`."""
    prefix, dot, _ = stage.partition(".")
    return prefix if dot and prefix in PHASES[1:] else "online"


class _Stack:
    """The open stages and the clock: each tick of time goes to the innermost open stage, and to the call it is in."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.lock = threading.RLock()  # reentrant: the garbage collector may close a generator, and its stage, anywhere
        self.clock = clock
        self.stages: list[_Stage] = []
        self.mark = clock()
        self.calling = ""
        self.called_seconds = 0.0

    def settle(self) -> None:
        """Give the time since the last call to the innermost stage; the caller holds the lock."""
        now = self.clock()
        passed, self.mark = now - self.mark, now
        stage = self.stages[-1]
        stage.seconds += passed
        if self.calling:
            self.called_seconds += passed
            stage.add(self.calling, Counts(blocked_seconds=passed))
        else:
            stage.compute_seconds += passed

    def enter(self, stage: "_Stage") -> None:
        with self.lock:
            self.settle()
            self.stages.append(stage)
            stage.used = True

    def leave(self, stage: "_Stage", *, unwinding: bool) -> None:
        with self.lock:
            self.settle()
            if self.stages[-1] is stage:
                self.stages.pop()
            elif not unwinding:
                raise RuntimeError(f"stage {stage.name} was left while {self.stages[-1].name} is the innermost one")
            elif stage in self.stages:  # an exception may close interleaved generators in any order
                while self.stages.pop() is not stage:
                    pass


class _Stage:
    """One stage's account, and the context manager that enters and leaves it."""

    __slots__ = ("compute_seconds", "name", "past", "peers", "seconds", "stack", "step_mark", "used")

    def __init__(self, name: str, stack: _Stack) -> None:
        self.name = name
        self.stack = stack
        self.past: StageReading | None = None
        self.clear()

    def clear(self) -> None:
        self.seconds = self.compute_seconds = self.step_mark = 0.0
        self.peers: dict[str, Counts] = {}
        self.used = False

    def add(self, peer: str, counts: Counts) -> None:
        self.peers[peer] = self.peers[peer] + counts if peer in self.peers else counts

    def __enter__(self) -> None:
        self.stack.enter(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stack.leave(self, unwinding=kind is not None)

    def reading(self) -> StageReading:
        total = asdict(sum(self.peers.values(), start=Counts()))
        return StageReading(
            stage=self.name,
            phase=phase_of(self.name),
            seconds=self.seconds,
            compute_seconds=self.compute_seconds,
            peers=dict(self.peers),
            **total,
        )

    def lifetime(self) -> StageReading:
        """What `reset` cleared, and the reading since."""
        return self.reading() if self.past is None else self.past.followed_by(self.reading())


class StageMeter:
    """Accounts every second and byte of a party to the stage it was spent in.

    Stages nest; a stage's seconds exclude those of the stages inside it, and time outside every stage is `bench.idle`,
    so the seconds of all stages sum to the wall time since `reset`. One thread works in stages; any thread may read.

    Args:
        clock: seconds from any origin, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._stack = _Stack(clock)
        idle = _Stage(IDLE, self._stack)
        self._stack.stages.append(idle)
        self._stages = {IDLE: idle}
        self._exchanges: dict[str, Histogram] = {}
        self._steps: dict[str, Histogram] = {}
        self._added: dict[str, float] = {}
        self._put: dict[str, float | Callable[[], float]] = {}
        self._restart()

    def stage(self, name: str) -> _Stage:
        """Returns a context manager; time and counts inside it belong to stage `name`.

        Raises:
            ValueError: `name` is neither one of `STAGES` nor under `offline.`, `setup.` or `bench.`.
        """
        return self._stages.get(name) or self._open_account(name)

    def _open_account(self, name: str) -> _Stage:
        if name not in STAGES and phase_of(name) == "online":
            raise ValueError(
                f"stage {name!r} is unknown; use one of {', '.join(STAGES)}, offline.*, setup.* or bench.*"
            )
        with self._stack.lock:
            return self._stages.setdefault(name, _Stage(name, self._stack))

    def begin_call(self, peer: str) -> None:
        """A call of the link to `peer` begins; until `count` ends it, the time is blocked on that peer."""
        with self._stack.lock:
            self._stack.settle()
            self._stack.calling, self._stack.called_seconds = peer, 0.0

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
        """Adds to the current stage what one call of the link to `peer` did: bytes, messages, rounds.

        `blocked` are wall seconds that were spent in it outside `begin_call`.
        """
        counts = Counts(
            sent_bytes=sent, received_bytes=received, messages=messages, rounds=rounds, blocked_seconds=blocked
        )
        with self._stack.lock:
            if self._stack.calling:
                self._stack.settle()
                blocked += self._stack.called_seconds
                self._stack.calling, self._stack.called_seconds = "", 0.0
            self._stack.stages[-1].add(peer, counts)
            if rounds >= 1:
                self._exchanges.setdefault(peer, Histogram(EXCHANGE_BUCKETS)).observe(blocked)

    def aside(self, stage: str) -> Aside:
        """An account for the calls of a thread beside the one that works in stages."""
        return Aside(self.count_aside, stage)

    def count_aside(self, stage: str, peer: str, counts: Counts) -> None:
        """Adds to a stage, whatever the current one, what a call of another thread did."""
        with self._stack.lock:
            self.stage(stage).add(peer, counts)
            self.stage(stage).used = True

    def add(self, name: str, count: float = 1) -> None:
        """Adds to a counter of the registry that only the caller knows, such as repeats.

        Raises:
            KeyError: the registry has no such metric.
        """
        with self._stack.lock:
            self._added[BY_NAME[name].name] = self._added.get(name, 0.0) + count

    def put(self, name: str, value: float | Callable[[], float] | None) -> None:
        """Sets a gauge of the registry that only the caller knows, such as a cache's size; None takes it away.

        A function is asked whenever somebody reads, from any thread.

        Raises:
            KeyError: the registry has no such metric.
        """
        with self._stack.lock:
            self._put.pop(BY_NAME[name].name, None)
            if value is not None:
                self._put[name] = value

    def numbers(self) -> Mapping[str, float]:
        """What `add` and `put` made, by metric name."""
        with self._stack.lock:
            put = dict(self._put)
            numbers = dict(self._added)
        return numbers | {name: value() if callable(value) else value for name, value in put.items()}

    @property
    def current(self) -> str:
        """The name of the innermost open stage."""
        return self._stack.stages[-1].name

    def snapshot(self) -> tuple[StageReading, ...]:
        """One reading for each stage entered since `reset`, the running stage's time so far included."""
        with self._stack.lock:
            self._stack.settle()
            return tuple(stage.reading() for stage in self._stages.values() if stage.used)

    def lifetime(self) -> tuple[StageReading, ...]:
        """One reading for each stage ever entered, over all resets: every number of it only grows."""
        with self._stack.lock:
            self._stack.settle()
            return tuple(stage.lifetime() for stage in self._stages.values() if stage.used or stage.past)

    def begin_steps(self) -> None:
        """The first decoding step begins now."""
        for stage, _ in self._since_last_step():
            stage.step_mark = stage.seconds

    def end_step(self) -> None:
        """A decoding step is over, and the next begins: what each stage took since the last call is one duration."""
        for stage, seconds in self._since_last_step():
            if seconds > 0:
                self._steps.setdefault(stage.name, Histogram(STEP_BUCKETS)).observe(seconds)
                stage.step_mark = stage.seconds

    def _since_last_step(self) -> Iterator[tuple[_Stage, float]]:
        with self._stack.lock:
            self._stack.settle()
            for stage in self._stages.values():
                yield stage, stage.seconds - stage.step_mark

    def step_times(self) -> dict[str, Histogram]:
        """For each stage, its durations within decoding steps since the meter was made."""
        with self._stack.lock:
            return {stage: times.copy() for stage, times in self._steps.items()}

    def exchange_times(self) -> dict[str, Histogram]:
        """For each peer, how long exchanges (calls of at least one round) blocked since the meter was made."""
        with self._stack.lock:
            return {peer: times.copy() for peer, times in self._exchanges.items()}

    def reset(self) -> None:
        """Starts all accounts again from zero; open stages stay open, and `lifetime` goes on."""
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
