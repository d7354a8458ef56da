"""What a cell will take: bytes by formula, seconds by formula or from a similar cell of the past."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from orchestrator.cells import Cell
from orchestrator.costs import WORD, Cost, crypten_token
from orchestrator.experiment import model_spec
from orchestrator.networks import Network
from orchestrator.record import Record
from parties.policies import make

# Rough figures of a two-core machine; one record of a similar cell replaces them.
_BYTES_PER_SECOND = 60e6
_SECONDS_PER_ROUND = 1e-3
_PLAIN_PARAMETERS_PER_SECOND = 1e9
_SET_UP_SECONDS = 20.0
_UNKNOWN_SECONDS = 60.0
_PAIRS = ("client>server", "server>client")


@dataclass(frozen=True)
class Estimate:
    """What one cell will take.

    Attributes:
        seconds: The whole cell: start, prefill, decoding, check.
        seconds_per_token: Decoding alone.
        online_bytes: Sent by client and server together, all tokens; None without a formula for the engine.
        offline_bytes: Sent by the dealer, all tokens; None without a formula.
        rounds: Online, all tokens; None without a formula.
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

    Seconds a token are local work (in proportion to the bytes opened, and to the rounds), plus rounds times the round
    trip, plus bytes over the rate of the slower direction.
    """
    spec = model_spec(cell.model)
    if cell.engine.name == "plain":
        per_token = spec.parameters / _PLAIN_PARAMETERS_PER_SECOND
        return Estimate(_SET_UP_SECONDS + per_token * cell.new_tokens, per_token, 0.0, 0.0, 0.0)
    if cell.engine.name != "crypten":
        return Estimate(_SET_UP_SECONDS, _UNKNOWN_SECONDS, None, None, None)
    policy = make(cell.policy.name, **cell.policy.parameters)
    cost = Cost()
    for step in range(cell.new_tokens):
        cached = policy.cached(cell.seq_len - 1) + step + 1
        cost += crypten_token(spec, policy, cached, private_argmax=cell.argmax == "private")
    sent = cost.sent * WORD
    local = sent / _BYTES_PER_SECOND + cost.rounds * _SECONDS_PER_ROUND
    seconds = local + cost.rounds * _round_trip(cell.network) + sent / _rate(cell.network)
    return Estimate(
        seconds=_SET_UP_SECONDS + seconds + _prompt_seconds(cell, seconds / cell.new_tokens),
        seconds_per_token=seconds / cell.new_tokens,
        online_bytes=2 * sent,
        offline_bytes=cost.dealt * WORD,
        rounds=cost.rounds,
    )


def _prompt_seconds(cell: Cell, per_token: float) -> float:
    """A prompt that is run inside takes at most what as many decoded tokens take: its tokens share rounds."""
    return (cell.seq_len - 1) * per_token if cell.prefill == "mpc" else 0.0


def _round_trip(network: Network) -> float:
    """Seconds from client to server and back, as asked; 0 for links left as they are."""
    return sum(network.pairs[pair]["delay_ms"] or 0.0 for pair in _PAIRS if network.pairs) / 1e3


def _rate(network: Network) -> float:
    """Bytes a second in the slower direction, as asked; infinite for links left as they are."""
    rates = [network.pairs[pair]["rate_mbit"] for pair in _PAIRS if network.pairs]
    return min((rate * 1e6 / 8 for rate in rates if rate), default=math.inf)


def _same_setting(past: Cell, cell: Cell) -> bool:
    same = ("engine", "model", "network", "argmax", "gpu", "prefill")
    return all(getattr(past, name) == getattr(cell, name) for name in same)


def _distance(past: Cell, cell: Cell) -> tuple[bool, int]:
    return past.policy != cell.policy, abs(past.seq_len - cell.seq_len)


def _scaled(measured: float, own: float | None, theirs: float | None) -> float | None:
    if own is None:
        return None
    return measured * own / theirs if theirs else own
