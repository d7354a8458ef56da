"""Synthetic progress of the parties, for tests of the driver's side."""

from typing import Any

from parties.metering.token_times import token_times
from parties.roles.reports import PartyProgress

ROLES = ("client", "server", "dealer", "referee")


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def progress_at(t: float, **changes: Any) -> dict[str, PartyProgress]:
    """The progress of all parties, `t` seconds into a cell in which everything grows evenly."""
    parties = {role: _party(role, t) for role in ROLES}
    return {role: PartyProgress(**{**party, **changes.get(role, {})}) for role, party in parties.items()}


def _party(role: str, t: float) -> dict[str, Any]:
    private = role in ("client", "server")
    return {
        "role": role,
        "state": "decode",
        "stage": "softmax",
        "tokens": int(t) if private else 0,
        "sent_bytes": int(1e6 * t),
        "received_bytes": int(1e6 * t),
        "rounds": 100.0 * t,
        "blocked_seconds": 0.6 * t,
        "compute_seconds": 0.4 * t,
        "cpu_seconds": 0.5 * t,
        "rss_bytes": 500_000_000,
        "memory_limit_bytes": 8_000_000_000,
        "memory_available_bytes": 5_000_000_000,
        "gpu_bytes": None,
        "uptime_seconds": 10 + t,
        "stages": {"softmax": [0.7 * t, 60.0 * t, int(1.5e6 * t)], "qkv": [0.3 * t, 40.0 * t, int(5e5 * t)]},
        "times": token_times([1.0] * int(t), tokens=int(t)) if private else None,
        "peers": {peer: int(1e6 * t) for peer in ("client", "server", "dealer") if peer != role},
    }
