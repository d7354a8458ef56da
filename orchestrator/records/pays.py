"""From which prompt length a policy is faster than the full cache: a file of the run, which its report shows."""

import math
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from orchestrator.records.atomic import write_atomically
from parties.metering.token_times import Seconds

FILE = "pays.json"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Point(_Part):
    """One prompt length."""

    seq_len: int = Field(description="Tokens of the prompt.")
    seconds: Seconds = Field(description="Seconds per token with the policy.")
    full_seconds: Seconds = Field(description="Seconds per token with the full cache, otherwise the same.")
    measured: bool = Field(description="Whether both are medians of cells; otherwise the cost model predicts them.")

    @property
    def ratio(self) -> float:
        """The policy's time over that of the full cache."""
        return self.seconds / self.full_seconds


class Curve(_Part):
    """A policy against the full cache over prompt lengths, with the same engine and network."""

    series: str = Field(description="Engine and policy.")
    network: str = Field(description="Name of the network.")
    points: tuple[Point, ...] = Field(min_length=1, description="By length, the shortest first.")

    @property
    def verdict(self) -> str:
        """The lengths at which the policy is faster, in words; of several ranges the one of the longest prompts.

        Between two points the ratio is taken to be a power of the length.
        """
        first, last = self._faster
        if first > last:
            return f"not up to {self.points[-1].seq_len:,} tokens"
        begin, end = self._crossing(first - 1), self._crossing(last)
        if not begin:
            return f"up to {end} tokens" if end else f"at every length from {self.points[0].seq_len:,} tokens"
        return f"from {begin} to {end} tokens" if end else f"from {begin} tokens"

    @property
    def basis(self) -> str:
        """How the points are known."""
        measured = [point.seq_len for point in self.points if point.measured]
        if not measured:
            return "predicted"
        lengths = ", ".join(f"{length:,}" for length in measured)
        return f"measured at {lengths}" + ("; predicted beyond" if len(measured) < len(self.points) else "")

    @property
    def _faster(self) -> tuple[int, int]:
        """The first and the last point of the range; the first lies behind the last if there is none."""
        faster = [place for place, point in enumerate(self.points) if point.ratio < 1]
        if not faster:
            return 0, -1
        first = faster[-1]
        while first and self.points[first - 1].ratio < 1:
            first -= 1
        return first, faster[-1]

    def _crossing(self, place: int) -> str:
        """The length between a point and the next at which both caches take the same time; empty outside the points."""
        if place < 0 or place + 1 == len(self.points):
            return ""
        low, high = self.points[place : place + 2]
        part = math.log(low.ratio) / (math.log(low.ratio) - math.log(high.ratio))
        return f"about {_two_digits(low.seq_len * (high.seq_len / low.seq_len) ** part):,}"


def _two_digits(value: float) -> int:
    step: int = 10 ** max(0, math.floor(math.log10(value)) - 1)
    return round(value / step) * step


_CURVES = TypeAdapter(tuple[Curve, ...])


def save_curves(folder: Path, curves: Sequence[Curve]) -> None:
    """Writes `pays.json` into the folder of a run.

    Raises:
        OSError: The folder cannot be written.
    """
    write_atomically(folder / FILE, _CURVES.dump_json(tuple(curves), indent=1).decode() + "\n")


def load_curves(folder: Path) -> tuple[Curve, ...]:
    """The curves of a run; none without a file, or with one that cannot be read."""
    try:
        return _CURVES.validate_json((folder / FILE).read_bytes())
    except (OSError, ValidationError):
        return ()
