"""Traffic of a cell before it runs.

Counts of `fss` are exact, from a dry run of its programs on shapes (`parties.engines.fss.cost.cost`): all that a run
counts but for segments that are repeated by chance. Counts of `crypten` are estimates, from the formulas of
`orchestrator.predict.crypten_costs`, which do not include drafts. `spu` has no cost model: SPU's compiler decides what
its programs send.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from orchestrator.experiment.cells import Cell
from orchestrator.experiment.experiment import model_spec
from orchestrator.experiment.link_time import PARTIES, PhaseCost, StageCost
from orchestrator.predict.crypten_costs import WORD, Cost, crypten_token
from parties.errors import PartyError, Unsupported
from parties.options import RunOptions
from parties.policies.base import Policy

if TYPE_CHECKING:
    from parties.engines.fss.cost.cost import Traffic, Work


@dataclass(frozen=True)
class Forecast:
    """A cell's counts.

    Attributes:
        decode: All tokens together.
        prefill: A prompt that client and server run themselves; None where they do not, or where no count is known.
        exact: Whether a run counts the same, repeated segments left out.
        work: Local work of decoding in measurable units; None without a dry run.
    """

    decode: PhaseCost
    prefill: PhaseCost | None
    exact: bool
    work: "Work | None" = None


def forecast(cell: Cell, most: int | None = None, accepted: tuple[int, ...] = ()) -> Forecast:
    """Counts of one cell; cells that differ only in links or repeats are counted once.

    A dry run takes up to a second per token. With drafts every token is a pass, unless it is known what was accepted.

    Args:
        cell: The cell.
        most: Tokens that are counted one by one; a cell of more is scaled from these, and not exact. All if left out.
        accepted: How many draft tokens each pass accepts; passes after these accept none.

    Raises:
        PartyError: The engine has no cost model, or the policy's trained heads cannot be read here.
    """
    if not has_model(cell):
        raise Unsupported(f"engine {cell.engine.name!r} has no cost model; only records of runs predict its cells")
    counted = min(cell.new_tokens, most or cell.new_tokens)
    asked = (cell.model, cell.policy.build(), cell.seq_len, cell.new_tokens, counted, cell.options, cell.batch)
    found = _ENGINES[cell.engine.name](*asked, accepted)
    if cell.prompt.lines:  # which may be shorter
        found = replace(found, exact=False)
    return found if counted == cell.new_tokens else _scaled(found, cell.new_tokens / counted)


def has_model(cell: Cell) -> bool:
    """Whether the counts of a cell's engine can be known without a run."""
    return cell.engine.name in _ENGINES and not (cell.engine.name == "crypten" and cell.draft)


def known_forecast(cell: Cell, most: int | None = None, accepted: tuple[int, ...] = ()) -> Forecast | None:
    """As `forecast`; None where the engine has no cost model or the policy's trained heads cannot be read here."""
    try:
        return forecast(cell, most, accepted)
    except PartyError:
        return None


def _scaled(found: Forecast, factor: float) -> Forecast:
    cost, work = found.decode, found.work
    sent, dealt = ({role: n * factor for role, n in counts.items()} for counts in (cost.sent, cost.dealt))
    if work is not None:
        work = replace(work, **{name: round(n * factor) for name, n in asdict(work).items()})
    decode = PhaseCost(cost.rounds * factor, sent, dealt, retries=cost.retries * factor)
    return Forecast(decode, found.prefill, exact=False, work=work)


@lru_cache(maxsize=512)
def _fss(
    model: str,
    policy: Policy,
    seq_len: int,
    new_tokens: int,
    counted: int,
    options: RunOptions,
    batch: int,
    accepted: tuple[int, ...],
) -> Forecast:
    from parties.engines.fss.cost.cost import predict  # torch comes with it, and most commands do without

    prediction = predict(
        model_spec(model),
        policy,
        seq_len=seq_len,
        new_tokens=new_tokens,
        counted=counted,
        options=options,
        batch=batch,
        accepted=accepted,
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
        retries=traffic.retries,
    )


@lru_cache(maxsize=512)
def _crypten(
    model: str, policy: Policy, seq_len: int, _: int, counted: int, options: RunOptions, batch: int, *__: Any
) -> Forecast:
    spec, cost = model_spec(model), Cost()
    for step in range(counted):
        cached = policy.held(seq_len - 1, step + 1)
        cost += crypten_token(spec, policy, cached, batch=batch, private_argmax=options.argmax == "private")
    sent = cost.sent * WORD
    decode = PhaseCost(cost.rounds, dict.fromkeys(PARTIES, sent), {"client": cost.dealt * WORD, "server": 0.0})
    return Forecast(decode, None, exact=False)


def _plain(*_: Any) -> Forecast:
    nothing = dict.fromkeys(PARTIES, 0.0)
    return Forecast(PhaseCost(0, nothing, nothing), None, exact=True)


_ENGINES: dict[str, Callable[..., Forecast]] = {"fss": _fss, "crypten": _crypten, "plain": _plain}
