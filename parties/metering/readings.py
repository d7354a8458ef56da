"""Readings of a meter: traffic counts, seconds by stage, histograms. Immutable except for the histograms."""

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Traffic: bytes with framing, messages in both directions, rounds, and wall seconds inside link calls."""

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

    def __neg__(self) -> "Counts":
        return Counts(**{name: -value for name, value in asdict(self).items()})


@dataclass(slots=True)
class Tally:
    """Counts that are still growing; the fields are those of `Counts`."""

    sent_bytes: int = 0
    received_bytes: int = 0
    messages: int = 0
    rounds: float = 0.0
    blocked_seconds: float = 0.0

    def add(self, counts: Counts) -> None:
        """Adds counts."""
        self.sent_bytes += counts.sent_bytes
        self.received_bytes += counts.received_bytes
        self.messages += counts.messages
        self.rounds += counts.rounds
        self.blocked_seconds += counts.blocked_seconds

    def reading(self) -> Counts:
        """The counts so far."""
        return Counts(**asdict(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class StageReading(Counts):
    """One stage: its exclusive wall seconds, those outside link calls and of a GPU, counts by peer, and their sum."""

    stage: str
    phase: str
    seconds: float
    compute_seconds: float = 0.0
    kernel_seconds: float = 0.0
    peers: Mapping[str, Counts]

    @classmethod
    def of(
        cls,
        stage: str,
        phase: str,
        seconds: float,
        compute_seconds: float,
        kernel_seconds: float,
        peers: Mapping[str, Counts],
    ) -> "StageReading":
        """A reading with the sum of its peers."""
        total = asdict(sum(peers.values(), start=Counts()))
        return cls(
            stage=stage,
            phase=phase,
            seconds=seconds,
            compute_seconds=compute_seconds,
            kernel_seconds=kernel_seconds,
            peers=dict(peers),
            **total,
        )

    def followed_by(self, later: "StageReading") -> "StageReading":
        """The sum of this reading and a later one of the same stage."""
        return self._with(later.seconds, later.compute_seconds, later.kernel_seconds, later.peers)

    def since(self, earlier: "StageReading") -> "StageReading":
        """The difference between this reading and an earlier one of the same stage."""
        peers = {peer: -counts for peer, counts in earlier.peers.items()}
        return self._with(-earlier.seconds, -earlier.compute_seconds, -earlier.kernel_seconds, peers)

    def _with(
        self, seconds: float, compute_seconds: float, kernel_seconds: float, peers: Mapping[str, Counts]
    ) -> "StageReading":
        """This reading with amounts added."""
        both = {peer: self.peers.get(peer, Counts()) + peers.get(peer, Counts()) for peer in {**self.peers, **peers}}
        return self.of(
            self.stage,
            self.phase,
            self.seconds + seconds,
            self.compute_seconds + compute_seconds,
            self.kernel_seconds + kernel_seconds,
            both,
        )


class Histogram:
    """Counts of durations by bucket.

    Args:
        bounds: Upper bounds in seconds, increasing; one more bucket has no bound.

    Attributes:
        buckets: Counts, one more than there are bounds.
        seconds: Sum of all durations.
    """

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.buckets = [0] * (len(bounds) + 1)
        self.seconds = 0.0

    def observe(self, seconds: float) -> None:
        """Counts a duration in the first bucket whose bound it does not exceed."""
        self.buckets[bisect_left(self.bounds, seconds)] += 1
        self.seconds += seconds

    def copy(self) -> "Histogram":
        """A copy that later observations do not change."""
        twin = Histogram(self.bounds)
        twin.buckets, twin.seconds = list(self.buckets), self.seconds
        return twin
