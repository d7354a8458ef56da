"""Predicts the cost of a cell before it runs, for `--dry-run`, the time left, `cost` and `eval`."""

from collections.abc import Iterable
from dataclasses import dataclass

from orchestrator.experiment.cells import Cell
from orchestrator.experiment.link_time import PhaseCost, link_seconds, stored_seconds, wall_seconds
from orchestrator.predict.calibration import Calibration
from orchestrator.predict.forecast import Forecast, known_forecast
from orchestrator.predict.local_work import LocalWork, decoding_work, rough_seconds
from orchestrator.predict.similar import Example, nearest
from orchestrator.records.record import Record

COUNTED_TOKENS = 8
"""Tokens of a cell that are counted one by one, unless all are requested."""

UNKNOWN = "unknown"
_SETUP_SECONDS = 20.0
_UNKNOWN_SECONDS = 60.0


@dataclass(frozen=True)
class Prediction:
    """The predicted cost of one cell. Amounts of decoding are totals over all tokens.

    With drafts they are those of as many passes as there are tokens, which is what a cell needs if no draft is right.

    Attributes:
        tokens: New tokens.
        counts: Traffic; None where it cannot be known here.
        link_seconds: Seconds of decoding on the links between client and server.
        local_seconds: Seconds of local work in decoding.
        decode_seconds: Both together; those of a dealer that streams where it is slower; as measured where they were.
        prompt_seconds: Seconds of a prompt that client and server run themselves.
        setup_seconds: Start of the parties, stored randomness and check.
        source: Source of the local seconds: a record's id, `calibration`, `rule of thumb` or `unknown`.
        tokens_per_pass: Tokens of a pass where `decode_seconds` are measured; 1 otherwise.
        measured: Whether `source` is a record of the same measurement, whose seconds per token are taken as they are.
    """

    tokens: int
    counts: Forecast | None
    link_seconds: float
    local_seconds: float
    decode_seconds: float
    prompt_seconds: float
    setup_seconds: float
    source: str
    tokens_per_pass: float = 1.0
    measured: bool = False

    @property
    def seconds(self) -> float:
        """The whole cell."""
        return self.setup_seconds + self.prompt_seconds + self.decode_seconds

    @property
    def seconds_per_token(self) -> float:
        """Decoding alone."""
        return self.decode_seconds / self.tokens

    @property
    def seconds_per_pass(self) -> float:
        """Decoding alone; the same as `seconds_per_token` without drafts."""
        return self.seconds_per_token * self.tokens_per_pass

    @property
    def rounds(self) -> float | None:
        """Online rounds of decoding; None where they cannot be known here."""
        return None if self.counts is None else self.counts.decode.rounds

    @property
    def online_bytes(self) -> float | None:
        """Sent by client and server together in decoding; None where it cannot be known here."""
        return None if self.counts is None else sum(self.counts.decode.sent.values())

    @property
    def offline_bytes(self) -> float | None:
        """Sent by the dealer for decoding; None where it cannot be known here."""
        return None if self.counts is None else sum(self.counts.decode.dealt.values())


def predict(
    cell: Cell,
    past: Iterable[Record] = (),
    calibration: Calibration | None = None,
    *,
    most: int | None = COUNTED_TOKENS,
) -> Prediction:
    """Predicts one cell: its counts, seconds on its links, and local seconds from the best source there is.

    An engine may have no cost model, and a policy's trained heads may be readable for the server alone. Then only a
    record of the same measurement predicts anything, and without one the seconds are a placeholder.

    Args:
        cell: The cell.
        past: Records to learn from, by the rule of `orchestrator.predict.similar`.
        calibration: Calibration of this machine; used where no record is similar.
        most: Tokens that are counted one by one; None for all. See `orchestrator.predict.forecast.forecast`.
    """
    counts, example = known_forecast(cell, most), nearest(cell, past, most)
    link, stored, local = 0.0, 0.0, LocalWork(_UNKNOWN_SECONDS * cell.new_tokens, UNKNOWN)
    decode = local.seconds
    if counts is not None:
        link = link_seconds(counts.decode, cell.network, cell.engine.name)
        stored = stored_seconds(counts.decode, cell.network, cell.offline)
        local = decoding_work(cell, counts, example, calibration)
        decode = _wall(local.seconds, counts.decode, cell)
    same = example if example is not None and example.repeats(cell) else None
    if same is not None:
        decode = same.seconds_per_token * cell.new_tokens
        local = LocalWork(decode if counts is None else local.seconds, same.id)
    return Prediction(
        tokens=cell.new_tokens,
        counts=counts,
        link_seconds=link,
        local_seconds=local.seconds,
        decode_seconds=decode,
        prompt_seconds=_prompt_seconds(cell, counts, decode / cell.new_tokens, example),
        setup_seconds=stored + (_SETUP_SECONDS if example is None else example.setup_seconds),
        source=local.source,
        tokens_per_pass=1.0 if same is None else same.tokens_per_pass,
        measured=same is not None,
    )


def _wall(local: float, cost: PhaseCost, cell: Cell) -> float:
    return wall_seconds(local, cost, cell.network, cell.engine.name, cell.offline)


def _prompt_seconds(cell: Cell, counts: Forecast | None, per_token: float, example: Example | None) -> float:
    """Seconds of a prompt inside MPC; 0 without one.

    It takes at most as long as the same tokens decoded one by one, since its tokens share rounds: a bound where the
    prompt's counts are not known. A record of a prompt inside MPC scales that bound to the measured share.
    """
    if cell.prefill != "mpc" or cell.engine.name == "plain":
        return 0.0
    bound = (cell.seq_len - 1) * per_token
    if example is not None and example.prompt_seconds is not None and example.seconds_per_token:
        return bound * example.prompt_seconds / ((example.cell.seq_len - 1) * example.seconds_per_token)
    if counts is None or counts.prefill is None:
        return bound
    return _wall(rough_seconds(cell, counts.prefill), counts.prefill, cell)
