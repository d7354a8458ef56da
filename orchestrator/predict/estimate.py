"""What a cell will take, for a dry run and for the time left: from its counts, or from a similar cell of the past."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from orchestrator.experiment.cells import Cell
from orchestrator.experiment.experiment import model_spec
from orchestrator.predict.forecast import PhaseCost, dealing_seconds, forecast, wall_seconds
from orchestrator.records.record import Record
from parties.errors import PartyError
from parties.options import RunOptions

# Rough figures of a two-core machine; one record of a similar cell replaces them.
_LOCAL = {"crypten": (120e6, 1e-3), "fss": (140e6, 0.4e-3)}  # bytes a second, seconds a round
_PLAIN_PARAMETERS_PER_SECOND = 1e9
_SET_UP_SECONDS = 20.0
_UNKNOWN_SECONDS = 60.0
_WALKED_TOKENS = 2


@dataclass(frozen=True)
class Estimate:
    """What one cell will take.

    Attributes:
        seconds: The whole cell: start, prefill, decoding, check.
        seconds_per_token: Decoding alone.
        online_bytes: Sent by client and server together, all tokens; None where it cannot be told.
        offline_bytes: Sent by the dealer, all tokens; None where it cannot be told.
        rounds: Online, all tokens; None where it cannot be told.
        source: `formula`, or the id of the record that the seconds follow.
    """

    seconds: float
    seconds_per_token: float
    online_bytes: float | None
    offline_bytes: float | None
    rounds: float | None
    source: str = "formula"


def estimate(cell: Cell, past: Iterable[Record] = ()) -> Estimate:
    """Estimates one cell.

    The seconds of the most similar measured cell of the past (same engine, model and network; then policy, then length)
    are scaled by the ratio of the formula for this cell and for that one; its bytes, by the same ratio of bytes.

    Args:
        cell: The cell.
        past: Records to learn from.
    """
    own = by_formula(cell)
    similar = [record for record in past if record.status.measured and _same_setting(record.cell, cell)]
    if not similar:
        return own
    best = min(similar, key=lambda record: _distance(record.cell, cell))
    if best.totals is None or best.seconds_per_token is None:
        return own
    theirs = by_formula(best.cell)
    per_token = best.seconds_per_token * own.seconds_per_token / theirs.seconds_per_token
    around = (best.finished - best.started).total_seconds() - best.seconds_per_token * best.tokens
    sent = {phase: sum(getattr(best.totals, phase).sent_bytes.values()) for phase in ("online", "offline")}
    return replace(
        own,
        seconds=max(0.0, around) + per_token * cell.new_tokens,
        seconds_per_token=per_token,
        online_bytes=_scaled(sent["online"], own.online_bytes, theirs.online_bytes),
        offline_bytes=_scaled(sent["offline"], own.offline_bytes, theirs.offline_bytes),
        rounds=_scaled(best.totals.online.rounds, own.rounds, theirs.rounds),
        source=best.id,
    )


def by_formula(cell: Cell) -> Estimate:
    """Estimates one cell from its public shapes alone.

    Seconds are local work (in proportion to the bytes that the parties handle, and to the rounds), plus what the links
    take. Of a private cell, at most two tokens are forecast, and count for all. A policy's trained heads may lie where
    only the server can read them; then nobody can tell before.
    """
    if cell.engine.name == "plain":
        per_token = model_spec(cell.model).parameters / _PLAIN_PARAMETERS_PER_SECOND
        return Estimate(_SET_UP_SECONDS + per_token * cell.new_tokens, per_token, 0.0, 0.0, 0.0)
    walked = min(cell.new_tokens, _WALKED_TOKENS)
    try:
        known = forecast(cell.model_copy(update={"new_tokens": walked}))
    except PartyError:
        return Estimate(_SET_UP_SECONDS + _UNKNOWN_SECONDS * cell.new_tokens, _UNKNOWN_SECONDS, None, None, None)
    cost, factor = known.decode, cell.new_tokens / walked
    per_token = _seconds(cost, cell) / walked
    if known.prefill is not None:
        prompt = _seconds(known.prefill, cell)
    else:  # at most what as many decoded tokens take, for the prompt's tokens share rounds
        prompt = (cell.seq_len - 1) * per_token if cell.prefill == "mpc" else 0.0
    before = dealing_seconds(cost, cell) * factor if cell.offline == "stored" else 0.0
    return Estimate(
        seconds=_SET_UP_SECONDS + before + prompt + per_token * cell.new_tokens,
        seconds_per_token=per_token,
        online_bytes=sum(cost.sent.values()) * factor,
        offline_bytes=sum(cost.dealt.values()) * factor,
        rounds=cost.rounds * factor,
    )


def _seconds(cost: PhaseCost, cell: Cell) -> float:
    rate, per_round = _LOCAL[cell.engine.name]
    local = cost.handled / rate + cost.rounds * per_round
    return wall_seconds(local, cost, cell)


def _same_setting(past: Cell, cell: Cell) -> bool:
    same = ("engine", "model", "network", "gpu", *RunOptions.model_fields)
    return all(getattr(past, name) == getattr(cell, name) for name in same)


def _distance(past: Cell, cell: Cell) -> tuple[bool, int]:
    return past.policy != cell.policy, abs(past.seq_len - cell.seq_len)


def _scaled(measured: float, own: float | None, theirs: float | None) -> float | None:
    if own is None:
        return None
    return measured * own / theirs if theirs else own
