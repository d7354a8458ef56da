"""Quality against private cost: the cost of each policy on the links, and the policies that are not dominated."""

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.experiment.cells import Cell, expand
from orchestrator.experiment.experiment import Experiment
from orchestrator.predict.calibration import Calibration
from orchestrator.predict.prediction import predict
from orchestrator.records.record import Record
from parties.policies.choice import PolicyChoice

NETWORKS = ("lan", "wan")


@dataclass(frozen=True)
class Price:
    """The private cost of one decoded token with the engine `fss`.

    Attributes:
        seconds: Seconds by network: measured where there is a record of the same cell, predicted otherwise.
        measured: Networks whose seconds were measured.
        online_bytes: Bytes sent by both parties, exact.
        rounds: Online rounds, exact.
    """

    seconds: dict[str, float]
    measured: frozenset[str]
    online_bytes: float
    rounds: float


def price(
    model: str,
    policy: PolicyChoice,
    length: int,
    past: Sequence[Record] = (),
    calibration: Calibration | None = None,
) -> Price:
    """The private cost of one token, measured or predicted.

    Args:
        model: The model.
        policy: The policy.
        length: Tokens of the prompt.
        past: Records to use or to learn from.
        calibration: Calibration of this machine.
    """
    cells = _cells(model, policy, length)
    predictions = {network: predict(cell, past, calibration) for network, cell in cells.items()}
    any_one = next(iter(predictions.values()))
    return Price(
        seconds={name: one.seconds_per_token for name, one in predictions.items()},
        measured=frozenset(name for name, one in predictions.items() if one.measured),
        online_bytes=any_one.online_bytes or 0.0,
        rounds=any_one.rounds or 0.0,
    )


def undominated(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Flags the points (cost, quality) that no other point dominates: cheaper and as good, or better and as cheap."""
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
