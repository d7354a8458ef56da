"""Synthetic experiments, cells and records for tests."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from orchestrator.experiment.cells import Cell, expand
from orchestrator.experiment.experiment import Experiment
from orchestrator.records.record import (
    CellError,
    Check,
    PartyReading,
    PartyStage,
    PhaseTotal,
    Record,
    Serving,
    Status,
    Totals,
)
from parties.metering.token_times import token_times
from parties.roles.reports import PartyResult

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
MODEL = "random:tiny-llama"

# Share of a stage in all seconds, the part of them that is blocked, and its share in all online bytes.
STAGES = {
    "embed": (0.05, 0.3, 0.16),
    "norm": (0.08, 0.8, 0.01),
    "qkv": (0.08, 0.4, 0.11),
    "similarity": (0.02, 0.6, 0.01),
    "topk": (0.04, 0.8, 0.01),
    "gather": (0.02, 0.5, 0.02),
    "scores": (0.03, 0.5, 0.02),
    "softmax": (0.12, 0.8, 0.04),
    "attend": (0.03, 0.5, 0.02),
    "out_proj": (0.05, 0.4, 0.07),
    "gate_up": (0.13, 0.4, 0.17),
    "activation": (0.05, 0.8, 0.02),
    "down": (0.1, 0.4, 0.1),
    "lm_head": (0.12, 0.3, 0.2),
    "argmax": (0.08, 0.8, 0.04),
}


def experiment(**changes: Any) -> Experiment:
    """A small valid experiment."""
    values: dict[str, Any] = {
        "name": "synthetic",
        "model": MODEL,
        "prompt": {"random_tokens": True},
        "engines": ["crypten"],
        "policies": ["full", "mpcache"],
        "seq_lens": [128, 256, 512],
        **changes,
    }
    return Experiment.model_validate(values)


def cell(**changes: Any) -> Cell:
    """The first cell of such an experiment."""
    return expand(experiment(**changes))[0]


def record(
    of: Cell | None = None, *, seconds: float | None = None, status: Status = Status.OK, **changes: Any
) -> Record:
    """A record of a cell that ran: cost grows with the prompt, and mpcache is cheaper than full."""
    of = of or cell()
    small = 0.75 if of.policy.name == "mpcache" else 1.0
    per_token = seconds if seconds is not None else (8.0 + of.seq_len / 64 * small) * (1 + 0.03 * of.repeat)
    online_bytes = int(1.3e9 + 1.5e6 * of.seq_len * small)
    offline_bytes = int(2.5e7 + 9e4 * of.seq_len * small)
    values: dict[str, Any] = {
        "id": of.id,
        "experiment": "synthetic",
        "status": status,
        "cell": of,
        "started": START,
        "finished": START + timedelta(seconds=20 + per_token * of.new_tokens),
        "trust_model": "two parties and a dealer, semi-honest, at most one of the three corrupted",
        "prefill": "shared: the bench ran the prompt in the clear",
        "leaks": "nothing beyond the public sequence length and the policy's parameters",
        "tokens": of.new_tokens,
        "seconds_per_token": per_token,
        "totals": Totals(
            online=_total(of, per_token * 0.8, online_bytes, ("client", "server"), 5400 * small),
            offline=_total(of, per_token * 0.2, offline_bytes, ("dealer",), 2700 * small),
        ),
        "stages": _stages(of, per_token, online_bytes, offline_bytes),
        "check": Check(
            max_abs_logit_error=0.05,
            median_abs_logit_error=0.03,
            tokens_match=status is Status.OK,
            tokens_compared=of.new_tokens,
            tolerance=1.0,
        ),
        "parties": {role: PartyReading(peak_rss_bytes=2**30) for role in ("client", "server", "dealer", "referee")},
        "versions": {"python": "3.11.7", "torch": "2.13.0", "cpu": "a processor", "cores": "2", "memory_gib": "8.0"},
        **changes,
    }
    return Record.model_validate(values)


def serving(pass_seconds: Sequence[float], **counts: int) -> Serving:
    """The numbers of serving of passes that take these seconds, with a shared prompt."""
    times = token_times(pass_seconds, **{"tokens": len(pass_seconds)} | counts)
    assert times is not None
    return Serving(**dict(times), pass_seconds=tuple(pass_seconds), ttft_covers="first token")


def failure(of: Cell | None = None, status: Status = Status.PARTY_DIED, **changes: Any) -> Record:
    """A record of a cell that failed."""
    of = of or cell()
    error = {
        "status": status, "message": "server is gone; look at dmesg", "role": "server", "stage": "softmax",
        "sent_bytes": 1000, "received_bytes": 2000, **changes,
    }  # fmt: skip
    return Record(
        id=of.id,
        experiment="synthetic",
        status=status,
        cell=of,
        started=START,
        finished=START + timedelta(seconds=5),
        trust_model="two parties and a dealer, semi-honest, at most one of the three corrupted",
        prefill="shared: the bench ran the prompt in the clear",
        error=CellError.model_validate(error),
    )


def result(role: str, *, tokens: int = 2, seconds: float = 4.0, **changes: Any) -> dict[str, Any]:
    """The result of a party for a cell."""
    stages = [
        {"stage": "setup.weights", "phase": "setup", "seconds": 9.0, "blocked_seconds": 0.0},
        {"stage": "offline.triples", "phase": "offline", "seconds": 1.0, "blocked_seconds": 0.5},
        {"stage": "softmax", "phase": "online", "seconds": 3.0, "blocked_seconds": 2.0},
        {"stage": "bench.idle", "phase": "bench", "seconds": 7.0, "blocked_seconds": 0.0},
    ]
    traffic = {"sent_bytes": 100, "received_bytes": 100, "messages": 3, "rounds": 3, "peers": {}}
    return {
        "role": role,
        "tokens": tokens,
        "decode_seconds": seconds,
        "stages": [stage | traffic for stage in stages],
        "peak_rss_bytes": 10**8,
        "gpu_peak_bytes": None,
        "interface_sent_bytes": 400,
        "interface_received_bytes": 400,
        "versions": {"torch": "2.13.0"},
        "warnings": [],
        **changes,
    }


def reported(results: Mapping[str, Mapping[str, Any]]) -> dict[str, PartyResult]:
    """Results as the parties report them."""
    return {role: PartyResult.model_validate(result) for role, result in results.items()}


def results(**check: Any) -> dict[str, dict[str, Any]]:
    """The results of all parties for a private cell whose check went well, or as given."""
    passed = {
        "max_abs_logit_error": 0.1, "median_abs_logit_error": 0.05, "tokens_match": True, "tokens_compared": 2,
        "tolerance": 1.0, **check,
    }  # fmt: skip
    roles = {role: result(role) for role in ("client", "server", "dealer")}
    roles["dealer"] |= {"tokens": 0, "decode_seconds": 0.0}
    return {**roles, "referee": result("referee", check=passed)}


def _total(of: Cell, seconds: float, sent: int, roles: tuple[str, ...], rounds: float) -> PhaseTotal:
    n = of.new_tokens
    return PhaseTotal(
        rounds=rounds * n,
        seconds=seconds * n,
        blocked_seconds=seconds * n / 2,
        sent_bytes={role: sent // len(roles) * n for role in roles},
    )


def _stages(of: Cell, per_token: float, online: int, offline: int) -> tuple[PartyStage, ...]:
    n = of.new_tokens
    skipped = () if of.policy.name == "mpcache" else ("similarity", "topk", "gather")
    readings = [
        PartyStage(
            party=party, stage=stage, phase="online", seconds=share * per_token * 0.8 * n,
            blocked_seconds=share * blocked * per_token * 0.8 * n, sent_bytes=int(sent * online / 2 * n),
            received_bytes=int(sent * online / 2 * n), messages=10, rounds=5400 * share * n,
        )
        for party in ("client", "server")
        for stage, (share, blocked, sent) in STAGES.items()
        if stage not in skipped
    ]  # fmt: skip
    dealt: dict[str, Any] = {
        "phase": "offline",
        "stage": "offline.triples",
        "blocked_seconds": per_token * 0.1 * n,
        "rounds": 2700 * n,
    }
    seconds = per_token * 0.2 * n
    readings.append(PartyStage(party="client", seconds=seconds, sent_bytes=10, received_bytes=offline * n, **dealt))
    readings.append(PartyStage(party="dealer", seconds=seconds, sent_bytes=offline * n, received_bytes=10, **dealt))
    return tuple(readings)
