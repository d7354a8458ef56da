"""The stage meter: where a party's seconds, bytes and rounds go. Every number of a run is born here."""

import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from types import TracebackType

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


def phase_of(stage: str) -> str:
    """The phase of a stage: the prefix of `offline.*`, `setup.*` (once a model) and `bench.*`, else `online`."""
    prefix, dot, _ = stage.partition(".")
    return prefix if dot and prefix in PHASES[1:] else "online"


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What crossed the wire: bytes with framing, messages both ways, rounds, and wall seconds inside link calls."""

    sent_bytes: int = 0
    received_bytes: int = 0
    messages: int = 0
    rounds: float = 0.0
    blocked_seconds: float = 0.0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            sent_bytes=self.sent_bytes + other.sent_bytes,
            received_bytes=self.received_bytes + other.received_bytes,
            messages=self.messages + other.messages,
            rounds=self.rounds + other.rounds,
            blocked_seconds=self.blocked_seconds + other.blocked_seconds,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StageReading(Counts):
    """One stage: its exclusive wall seconds, the counts with each peer, and the sum of those counts."""

    stage: str
    phase: str
    seconds: float
    peers: Mapping[str, Counts]


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseTotals(Counts):
    """The sum over all stages of a phase; `seconds` are exclusive wall seconds."""

    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeTimes:
    """Blocked seconds of the exchanges with one peer: how many fell into each bucket, and their sum."""

    buckets: tuple[int, ...]
    seconds: float


class _Stack:
    """The open stages and the clock: each tick of time goes to the innermost open stage."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.lock = threading.RLock()  # reentrant: the garbage collector may close a generator, and its stage, anywhere
        self.clock = clock
        self.stages: list[_Stage] = []
        self.mark = clock()

    def settle(self) -> None:
        """Give the time since the last call to the innermost stage; the caller holds the lock."""
        now = self.clock()
        self.stages[-1].seconds += now - self.mark
        self.mark = now

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

    __slots__ = ("name", "peers", "seconds", "stack", "used")

    def __init__(self, name: str, stack: _Stack) -> None:
        self.name = name
        self.stack = stack
        self.clear()

    def clear(self) -> None:
        self.seconds = 0.0
        self.peers: dict[str, Counts] = {}
        self.used = False

    def __enter__(self) -> None:
        self.stack.enter(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stack.leave(self, unwinding=kind is not None)

    def reading(self) -> StageReading:
        total = asdict(sum(self.peers.values(), start=Counts()))
        return StageReading(
            stage=self.name, phase=phase_of(self.name), seconds=self.seconds, peers=dict(self.peers), **total
        )


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
        self._exchanges: dict[str, tuple[list[int], float]] = {}
        self.reset()

    def stage(self, name: str) -> _Stage:
        """Returns a context manager; time and counts inside it belong to stage `name`.

        Raises:
            ValueError: `name` is neither one of `STAGES` nnor under `offline.`, `setup.` or `bench.`.
        """
        return self._stages.get(name) or self._open_account(name)

    def _open_account(self, name: str) -> _Stage:
        if name not in STAGES and phase_of(name) == "online":
            raise ValueError(
                f"stage {name!r} is unknown; use one of {', '.join(STAGES)}, offline.*, setup.* or bench.*"
            )
        with self._stack.lock:
            return self._stages.setdefault(name, _Stage(name, self._stack))

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
        """Adds to the current stage what one call of the link to `peer` did: bytes, messages, rounds, wall seconds."""
        counts = Counts(
            sent_bytes=sent, received_bytes=received, messages=messages, rounds=rounds, blocked_seconds=blocked
        )
        with self._stack.lock:
            peers = self._stack.stages[-1].peers
            peers[peer] = peers[peer] + counts if peer in peers else counts
            if rounds >= 1:
                self._observe(peer, blocked)

    def _observe(self, peer: str, blocked: float) -> None:
        buckets, seconds = self._exchanges.get(peer) or ([0] * (len(EXCHANGE_BUCKETS) + 1), 0.0)
        buckets[bisect_left(EXCHANGE_BUCKETS, blocked)] += 1
        self._exchanges[peer] = (buckets, seconds + blocked)

    @property
    def current(self) -> str:
        """The name of the innermost open stage."""
        return self._stack.stages[-1].name

    def snapshot(self) -> tuple[StageReading, ...]:
        """One reading for each stage entered since `reset`, the running stage's time so far included."""
        with self._stack.lock:
            self._stack.settle()
            return tuple(stage.reading() for stage in self._stages.values() if stage.used)

    def exchange_times(self) -> dict[str, ExchangeTimes]:
        """For each peer, how long exchanges (calls of at least one round) blocked since `reset`."""
        with self._stack.lock:
            return {
                peer: ExchangeTimes(buckets=tuple(buckets), seconds=seconds)
                for peer, (buckets, seconds) in self._exchanges.items()
            }

    def totals(self, phase: str) -> PhaseTotals:
        """The sum of all stages of `phase`, one of `PHASES`, since `reset`."""
        if phase not in PHASES:
            raise ValueError(f"phase {phase!r} is unknown; use one of {', '.join(PHASES)}")
        readings = [reading for reading in self.snapshot() if reading.phase == phase]
        counts = asdict(sum((c for reading in readings for c in reading.peers.values()), start=Counts()))
        return PhaseTotals(seconds=sum(reading.seconds for reading in readings), **counts)

    def reset(self) -> None:
        """Starts all accounts again from zero; open stages stay open."""
        with self._stack.lock:
            for stage in self._stages.values():
                stage.clear()
            for stage in self._stack.stages:
                stage.used = True
            self._exchanges.clear()
            self._stack.mark = self._stack.clock()
