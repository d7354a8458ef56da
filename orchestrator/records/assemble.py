"""From the reports of the parties to the record of a cell."""

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any

from netem import LinkReading
from orchestrator.experiment.cells import Cell
from orchestrator.experiment.choices import EngineChoice
from orchestrator.records.record import (
    CellError,
    Check,
    PartyReading,
    PartyStage,
    PhaseTotal,
    PrefillTotals,
    Record,
    Serving,
    Status,
    Totals,
)
from orchestrator.records.versions import host_versions
from parties.metering.readings import StageReading
from parties.metering.token_times import token_times
from parties.options import DEFAULTS, RunOptions
from parties.roles.reports import PartyResult

Results = Mapping[str, PartyResult]

_PREFILL = {
    "shared": "shared: the bench's referee ran the prompt in the clear and gave client and server uniformly random "
    "shares of the cache; this took no part in the protocol and is in no total",
    "mpc": "mpc: client and server ran the prompt themselves, without showing it or the weights to each other or to "
    "the dealer; the bench's referee has both in the clear to check the run; what the prompt took stands apart from "
    "decoding",
}
_CLIENT_ARGMAX = "all logits of each new token are opened to the client (argmax: client)"
_DRAFTS = (
    "how many tokens of each draft are accepted is public to client, server and dealer: it tells how well the text can "
    "be guessed from what is before it"
)
_HEADER_BYTES = 66  # Ethernet, IP and TCP with time stamps
_TLS_BYTES = 22  # of a record: its own header, type and tag; a long message has one more for each 16 KiB, 0.13 %
_OTHER_BYTES = 5_000_000  # Ray's own traffic and scrapes during a cell
_OTHER_BYTES_A_SECOND = 64_000  # the same on the host of Ray's head: 40,000 to 48,000 in cells of six minutes
# The protocol's parties first: the client's clock is the one a user waits by. `plain` runs at the referee alone.
_CLOCKS = ("client", "server", "referee")


def build_record(
    cell: Cell,
    results: Results,
    links: Sequence[LinkReading],
    started: datetime,
    finished: datetime,
    *,
    experiment: str = "",
    shaping: str = "none",
    shaping_details: Mapping[str, str | float] = MappingProxyType({}),
    warnings: Sequence[str] = (),
) -> Record:
    """The record of a cell that ran to its end.

    Args:
        cell: The cell.
        results: Each role's result, as `Party.run` returns it.
        links: A reading for each ordered pair.
        started: When the cell began, UTC.
        finished: When it ended, UTC.
        experiment: Name of the experiment.
        shaping: The back end that shaped the links.
        shaping_details: Details of that back end.
        warnings: The driver's warnings, before the parties' own.
    """
    stages = _stages({role: result.stages for role, result in results.items()})
    clock = _clock(results)
    tokens = results[clock].tokens
    check = _check(results)
    reported = [f"{role}: {text}" for role, result in results.items() for text in result.warnings]
    if check is None and cell.engine.name != "plain":
        reported.append("the referee sent no check, so that the result counts as incorrect")
    mismatches = kernel_mismatches(results, shaping, tls=cell.network.tls)
    correct = cell.engine.name == "plain" if check is None else check.passed
    return Record(
        **_common(cell, links, started, finished, experiment, (shaping, shaping_details)),
        status=Status.OK if correct else Status.INCORRECT,
        tokens=tokens,
        seconds_per_token=results[clock].decode_seconds / tokens,
        serving=_serving(cell, results[clock]),
        drafted=results[clock].drafted,
        accepted=results[clock].accepted,
        totals=Totals(online=_total(stages, "online", clock), offline=_total(stages, "offline", clock)),
        stages=stages,
        prefill_totals=_prefill_totals(results, clock),
        check=check,
        parties={role: _party(result) for role, result in results.items()},
        warnings=(*_experimental(cell), *warnings, *reported, *_differences(results), *mismatches),
    )


def failed_record(
    cell: Cell,
    error: Mapping[str, Any] | CellError,
    links: Sequence[LinkReading],
    started: datetime,
    finished: datetime,
    *,
    experiment: str = "",
    shaping: str = "none",
    shaping_details: Mapping[str, str | float] = MappingProxyType({}),
    warnings: Sequence[str] = (),
) -> Record:
    """The record of a cell that did not run to its end.

    Args:
        cell: The cell.
        error: Fields of `CellError`: status and message, and what is known of role, stage and bytes.
        links: The same, as far as the links were measured.
        started: When the cell began, UTC.
        finished: When it ended, UTC.
        experiment: Name of the experiment.
        shaping: The back end that shaped the links.
        shaping_details: Details of that back end.
        warnings: The driver's warnings.
    """
    known = error if isinstance(error, CellError) else CellError.model_validate(error)
    common = _common(cell, links, started, finished, experiment, (shaping, shaping_details))
    return Record(**common, status=known.status, error=known, warnings=(*_experimental(cell), *warnings))


def _experimental(cell: Cell) -> tuple[str, ...]:
    """A warning that the cell's policy is experimental, and why."""
    reason = cell.policy.build().experimental
    return (f"policy {cell.policy.name} is experimental: {reason}",) if reason else ()


def _common(
    cell: Cell,
    links: Sequence[LinkReading],
    started: datetime,
    finished: datetime,
    experiment: str,
    shaping: tuple[str, Mapping[str, str | float]],
) -> dict[str, Any]:
    leaks = [cell.policy.build().leaks]
    leaks += [_CLIENT_ARGMAX] if cell.argmax == "client" else []
    leaks += [_DRAFTS] if cell.draft else []
    return {
        "id": cell.id,
        "experiment": experiment,
        "cell": cell,
        "started": started,
        "finished": finished,
        "trust_model": trust_model(cell.engine, cell.options),
        "prefill": _PREFILL["shared" if cell.engine.name == "plain" else cell.prefill],
        "leaks": "; ".join(leaks),
        "shaping": shaping[0],
        "shaping_details": dict(shaping[1]),
        "links": tuple(links),
        "versions": host_versions(),
    }


def trust_model(engine: EngineChoice, options: RunOptions = DEFAULTS) -> str:
    """Who must not collude with whom, as the engine states it."""
    from parties.engines.factory import engine_class  # torch comes with it, and most commands do without

    return engine_class(engine.name, engine.randomness or "private", options).trust_model


def _clock(results: Results) -> str:
    return next(role for role in _CLOCKS if role in results and results[role].tokens)


def _total(stages: Sequence[PartyStage], phase: str, clock: str) -> PhaseTotal:
    readings = [stage for stage in stages if stage.phase == phase]
    by_party = {role: [stage for stage in readings if stage.party == role] for role in {s.party for s in readings}}
    own = by_party.get(clock, [])
    return PhaseTotal(
        rounds=max((sum(stage.rounds for stage in party) for party in by_party.values()), default=0),
        seconds=sum(stage.seconds for stage in own),
        blocked_seconds=sum(stage.blocked_seconds for stage in own),
        sent_bytes={role: sum(stage.sent_bytes for stage in by_party[role]) for role in sorted(by_party)},
    )


def _stages(readings: Mapping[str, Sequence[StageReading]]) -> tuple[PartyStage, ...]:
    return tuple(_stage(role, reading) for role, stages in readings.items() for reading in stages)


def _stage(party: str, reading: StageReading) -> PartyStage:
    amounts = {name: getattr(reading, name) for name in PartyStage.model_fields if name != "party"}
    return PartyStage(party=party, **amounts)


def _prefill_totals(results: Results, clock: str) -> PrefillTotals | None:
    parts = {role: result.prefill for role, result in results.items() if result.prefill is not None}
    if clock not in parts:
        return None
    stages = _stages({role: part.stages for role, part in parts.items()})
    return PrefillTotals(
        seconds=parts[clock].seconds,
        online=_total(stages, "online", clock),
        offline=_total(stages, "offline", clock),
        stages=stages,
    )


def _serving(cell: Cell, result: PartyResult) -> Serving | None:
    prompt = result.prefill
    times = token_times(
        result.pass_seconds,
        tokens=result.tokens,
        sequences=cell.batch,
        prompt_seconds=0.0 if prompt is None else prompt.seconds,
        drafted=sum(result.drafted),
        accepted=sum(result.accepted),
    )
    if times is None:
        return None
    return Serving(
        **dict(times),
        pass_seconds=result.pass_seconds,
        recording_seconds=result.recording_seconds,
        ttft_covers="first token" if prompt is None else "prompt and first token",
    )


def _check(results: Results) -> Check | None:
    found = next((result.check for result in results.values() if result.check is not None), None)
    if found is None:
        return None
    return Check.model_validate(_finite(found.to_json()))


def _finite(reading: Any) -> Any:
    """A reading with None for each number that is not one."""
    if isinstance(reading, dict):
        return {key: _finite(value) for key, value in reading.items()}
    if isinstance(reading, list | tuple):
        return [_finite(value) for value in reading]
    return None if isinstance(reading, float) and not math.isfinite(reading) else reading


def _party(result: PartyResult) -> PartyReading:
    return PartyReading(**{name: getattr(result, name) for name in PartyReading.model_fields})


def kernel_mismatches(results: Results, shaping: str, *, tls: bool = False) -> list[str]:
    """Hosts whose kernel counted other bytes sent than their parties did, by more than 5 %, in words.

    The kernel also counts headers and acknowledgements, about 66 bytes for each message sent or received, what TLS
    adds, and whatever else uses the interfaces. The back end `proxy` sends everything twice.
    """
    found = []
    for host in sorted({result.host for result in results.values()} - {""}):
        here = [result for result in results.values() if result.host == host]
        parts = [part.stages for result in here for part in (result, result.prefill) if part is not None]
        stages = [stage for part in parts for stage in part]
        own = sum(stage.sent_bytes for stage in stages)
        headers = (_HEADER_BYTES + _TLS_BYTES * tls) * sum(stage.messages for stage in stages)
        kernel = max(result.interface_sent_bytes for result in here)
        seconds = max(sum(stage.seconds for stage in part) for part in parts)
        other = _OTHER_BYTES + _OTHER_BYTES_A_SECOND * seconds
        most = (own + headers) * (2 if shaping == "proxy" else 1) + other
        if not 0.95 * own <= kernel <= 1.05 * most:
            found.append(
                f"the kernel of {host} counted {kernel:,} bytes sent, its parties {own:,} and about {headers:,} of "
                "headers; something else used the network, or a count is wrong"
            )
    return found


def _differences(results: Results) -> list[str]:
    """Versions in which the parties differ."""
    stated = {role: result.versions for role, result in results.items()}
    packages = sorted({package for versions in stated.values() for package in versions})
    found = []
    for package in packages:
        by_role = {role: versions[package] for role, versions in stated.items() if package in versions}
        if len(set(by_role.values())) > 1:
            found.append(f"the parties differ in {package}: " + ", ".join(f"{r} {v}" for r, v in by_role.items()))
    return found
