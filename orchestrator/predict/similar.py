"""The most similar past record of a cell: the one rule by which predictions use measurements."""

from collections.abc import Iterable
from dataclasses import dataclass

from orchestrator.experiment.cells import Cell
from orchestrator.experiment.link_time import delay_seconds, link_seconds, stored_seconds
from orchestrator.predict.forecast import Forecast, known_forecast
from orchestrator.records.record import Record

_SETTING = ("engine", "model", "argmax", "gpu", "comparison", "spu", "draft")
_MEASUREMENT = (*_SETTING, "policy", "seq_len", "batch", "network", "offline", "softmax")


@dataclass(frozen=True)
class Example:
    """A measured record to learn from.

    Attributes:
        id: Id of the record.
        cell: The measured cell.
        counts: Its counts; None where the policy's trained heads cannot be read here.
        seconds_per_token: Seconds per token of decoding.
        tokens_per_pass: Tokens that a pass decoded on average; 1 without drafts.
        prompt_seconds: Seconds of a prompt that client and server ran themselves; None if they did not.
        setup_seconds: All else but the transfer of stored randomness.
    """

    id: str
    cell: Cell
    counts: Forecast | None
    seconds_per_token: float
    tokens_per_pass: float
    prompt_seconds: float | None
    setup_seconds: float

    @classmethod
    def of(cls, record: Record, most: int | None) -> "Example":
        """The example of a record whose status carries timings; `most` as in `forecast`."""
        cell, counts = record.cell, known_forecast(record.cell, most, record.accepted)
        per_token = record.seconds_per_token or 0.0
        prompt = record.prefill_totals.seconds if record.prefill_totals else None
        stored = 0.0 if counts is None else stored_seconds(counts.decode, cell.network, cell.offline)
        whole = (record.finished - record.started).total_seconds()
        setup = max(0.0, whole - per_token * record.tokens - (prompt or 0.0) - stored)
        passes = len(record.accepted) or record.tokens
        return cls(record.id, cell, counts, per_token, record.tokens / passes, prompt, setup)

    @property
    def local_seconds(self) -> float:
        """Seconds of all tokens minus the predicted seconds on the links."""
        decode = self.seconds_per_token * self.cell.new_tokens
        links = (
            0.0 if self.counts is None else link_seconds(self.counts.decode, self.cell.network, self.cell.engine.name)
        )
        return max(0.0, decode - links)

    def repeats(self, cell: Cell) -> bool:
        """Whether a decoded token of the cell is the same measurement."""
        return _same(self.cell, cell, _MEASUREMENT)


def nearest(cell: Cell, past: Iterable[Record], most: int | None = None) -> Example | None:
    """The measured record that is most similar to a cell; None where none has the same setting.

    The engine, the model, the argmax, the comparison, the draft and the use of a GPU must be the same. Of those records
    one with the same policy is taken, then the nearest batch and length, the same prefill, the same network and offline
    phase, and last the one with the shortest delay, whose seconds are local work for the most part.
    """
    similar = [record for record in past if record.status.measured and _same(record.cell, cell, _SETTING)]
    best = min(similar, key=lambda record: _distance(record.cell, cell), default=None)
    return None if best is None else Example.of(best, most)


def _same(past: Cell, cell: Cell, names: Iterable[str]) -> bool:
    return all(getattr(past, name) == getattr(cell, name) for name in names)


def _distance(past: Cell, cell: Cell) -> tuple[bool, int, int, bool, bool, bool, float]:
    return (
        past.policy != cell.policy,
        abs(past.batch - cell.batch),
        abs(past.seq_len - cell.seq_len),
        past.prefill != cell.prefill,
        past.network != cell.network,
        past.offline != cell.offline,
        delay_seconds(past.network, past.engine.name),
    )
