"""What a cell sends, how often, and how long the links take for it, before it runs.

Counts of `fss` are exact, from a walk through its programs (`parties.engines.fss.cost.cost`): all that a run counts
but for pieces that are repeated by chance. Counts of `crypten` are estimates, from the formulas of
`orchestrator.predict.crypten_costs`.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from orchestrator.experiment.cells import Cell
from orchestrator.experiment.experiment import model_spec
from orchestrator.experiment.networks import Network
from orchestrator.predict.crypten_costs import WORD, Cost, crypten_token
from parties.options import RunOptions
from parties.policies.base import Policy

if TYPE_CHECKING:
    from parties.engines.fss.cost.cost import Traffic, Work

PARTIES = ("client", "server")


@dataclass(frozen=True)
class StageCost:
    """Online traffic of one stage: rounds as the client counts them, bytes that each party sends."""

    stage: str
    rounds: float
    sent: Mapping[str, float]


@dataclass(frozen=True)
class PhaseCost:
    """What a prompt or all tokens of a cell cost.

    Attributes:
        rounds: Online.
        sent: Online bytes that each of client and server sends.
        dealt: Offline bytes that each of them receives from the dealer.
        stages: Of the online phase, in the order in which they come; empty for an estimate.
    """

    rounds: float
    sent: Mapping[str, float]
    dealt: Mapping[str, float]
    stages: tuple[StageCost, ...] = ()

    @property
    def handled(self) -> float:
        """All bytes together: what local work is in proportion to, roughly."""
        return sum(self.sent.values()) + sum(self.dealt.values())


@dataclass(frozen=True)
class Forecast:
    """A cell's counts.

    Attributes:
        decode: All tokens together.
        prefill: A prompt that client and server run themselves; None where they do not, or where nobody can tell.
        exact: Whether a run counts the same, repeats aside.
        work: Local work of decoding in measurable units; None without a walk.
    """

    decode: PhaseCost
    prefill: PhaseCost | None
    exact: bool
    work: "Work | None" = None


def forecast(cell: Cell) -> Forecast:
    """Counts of one cell; cells that differ in their links or repeats alone are walked once.

    Raises:
        PartyError: The policy's trained heads cannot be read here.
    """
    return _ENGINES[cell.engine.name](cell.model, cell.policy.build(), cell.seq_len, cell.new_tokens, cell.options)


def network_seconds(cost: PhaseCost, cell: Cell) -> float:
    """Seconds that the links between client and server take: rounds x delay + bytes / rate, as asked for.

    Both send at once, so a round of `fss` takes the longer way once. `crypten` asks the dealer before each round, and
    the opening's own way is hidden behind that: a round takes the way to the dealer and back.
    """
    network = cell.network
    if cell.engine.name == "crypten":
        delay = _delay(network, "client", "dealer") + _delay(network, "dealer", "client")
    else:
        delay = max(_delay(network, *pair) for pair in (PARTIES, PARTIES[::-1]))
    ways = zip(PARTIES, PARTIES[::-1], strict=True)
    sending = max(cost.sent[src] / _rate(network, src, dst) for src, dst in ways)
    return cost.rounds * delay + sending


def wall_seconds(local: float, cost: PhaseCost, cell: Cell) -> float:
    """Seconds of local work and links; a dealer that streams beside the run is waited for if it takes longer."""
    talking = local + network_seconds(cost, cell)
    return talking if cell.offline == "stored" else max(talking, dealing_seconds(cost, cell))


def dealing_seconds(cost: PhaseCost, cell: Cell) -> float:
    """Seconds that the slower of the dealer's two links takes for the material."""
    return max(size / _rate(cell.network, "dealer", role) for role, size in cost.dealt.items())


def _delay(network: Network, src: str, dst: str) -> float:
    """Seconds one way; 0 for links left as they are."""
    return (network.pairs[f"{src}>{dst}"]["delay_ms"] or 0.0) / 1e3 if network.pairs else 0.0


def _rate(network: Network, src: str, dst: str) -> float:
    """Bytes a second; infinite for links left as they are."""
    rate = network.pairs[f"{src}>{dst}"]["rate_mbit"] if network.pairs else None
    return rate * 1e6 / 8 if rate else math.inf


@lru_cache(maxsize=512)
def _fss(model: str, policy: Policy, seq_len: int, new_tokens: int, options: RunOptions) -> Forecast:
    from parties.engines.fss.cost.cost import predict  # torch comes with it, and most commands do without

    prediction = predict(
        model_spec(model),
        policy,
        seq_len=seq_len,
        new_tokens=new_tokens,
        options=options,
    )
    prompt = prediction.prefill
    return Forecast(_phase(prediction.decode), _phase(prompt) if prompt else None, exact=True, work=prediction.work)


def _phase(traffic: "Traffic") -> PhaseCost:
    online = {role: traffic.total(role, "online") for role in PARTIES}
    return PhaseCost(
        rounds=online["client"].rounds,
        sent={role: counts.sent_bytes for role, counts in online.items()},
        dealt={role: traffic.total(role, "offline").received_bytes for role in PARTIES},
        stages=tuple(
            StageCost(stage, counts.rounds, {role: traffic.counts[role, stage].sent_bytes for role in PARTIES})
            for (role, stage), counts in traffic.counts.items()
            if role == "client" and "." not in stage
        ),
    )


@lru_cache(maxsize=512)
def _crypten(model: str, policy: Policy, seq_len: int, new_tokens: int, options: RunOptions) -> Forecast:
    spec, cost = model_spec(model), Cost()
    for step in range(new_tokens):
        cached = policy.held(seq_len - 1, step + 1)
        cost += crypten_token(spec, policy, cached, private_argmax=options.argmax == "private")
    sent = cost.sent * WORD
    decode = PhaseCost(cost.rounds, dict.fromkeys(PARTIES, sent), {"client": cost.dealt * WORD, "server": 0.0})
    return Forecast(decode, None, exact=False)


def _plain(*_: Any) -> Forecast:
    nothing = dict.fromkeys(PARTIES, 0.0)
    return Forecast(PhaseCost(0, nothing, nothing), None, exact=True)


_ENGINES: dict[str, Callable[..., Forecast]] = {"fss": _fss, "crypten": _crypten, "plain": _plain}
