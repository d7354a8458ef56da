"""Quality against private cost: what each policy takes on the links, and which of them nothing beats."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from orchestrator.experiment.cells import Cell, expand
from orchestrator.experiment.experiment import Experiment
from orchestrator.predict.estimate import estimate
from orchestrator.records.record import Record
from parties.policies.choice import PolicyChoice

NETWORKS = ("lan", "wan")


@dataclass(frozen=True)
class Price:
    """A decoded token by engine fss.

    Attributes:
        seconds: By network: measured where a record of the same cell is there, else predicted.
        measured: Networks whose seconds are a record's.
        online_bytes: Of both parties, exact.
        rounds: Exact.
    """

    seconds: dict[str, float]
    measured: frozenset[str]
    online_bytes: float
    rounds: float


def price(model: str, policy: PolicyChoice, length: int, past: Sequence[Record] = ()) -> Price:
    """What one token costs in private, from records or from the cost model.

    Args:
        model: The model.
        policy: The policy.
        length: Tokens of the prompt.
        past: Records to take or to learn from.
    """
    cells = _cells(model, policy, length)
    estimates = {network: estimate(cell, past) for network, cell in cells.items()}
    any_one = next(iter(estimates.values()))
    same = {network: _of(cell, past) for network, cell in cells.items()}
    return Price(
        seconds={name: same[name] or one.seconds_per_token for name, one in estimates.items()},
        measured=frozenset(name for name, seconds in same.items() if seconds is not None),
        online_bytes=any_one.online_bytes or 0.0,
        rounds=any_one.rounds or 0.0,
    )


def undominated(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Which points (cost, quality) no other one beats: cheaper and as good, or better and as cheap."""
    return [
        not any(
            other_cost <= cost and other >= quality and (other_cost, other) != (cost, quality)
            for other_cost, other in points
        )
        for cost, quality in points
    ]


def _cells(model: str, policy: PolicyChoice, length: int) -> dict[str, Cell]:
    """The cell of one token on each network."""
    experiment = Experiment.model_validate(
        {
            "name": "price",
            "model": model,
            "prompt": {"random_tokens": True},
            "engines": ["fss"],
            "policies": [{"name": policy.name, **policy.parameters}],
            "seq_lens": [length],
            "networks": list(NETWORKS),
            "new_tokens": 1,
        }
    )
    return {cell.network.name: cell for cell in expand(experiment)}


def _of(cell: Cell, past: Iterable[Record]) -> float | None:
    """Seconds a token of a measured cell with the same model, policy, length and network."""
    key = (cell.model, cell.engine, cell.policy, cell.seq_len, cell.network)
    for record in past:
        theirs = record.cell
        if record.status.measured and key == (
            theirs.model, theirs.engine, theirs.policy, theirs.seq_len, theirs.network
        ):  # fmt: skip
            return record.seconds_per_token
    return None
