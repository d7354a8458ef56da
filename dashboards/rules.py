"""Recording and alert rules for Prometheus, built from the registry: a name that it does not know fails here.

A rate over 5 s holds four scrapes or more at the pace of one a second.
"""

from typing import Any

from parties.metering.registry import BY_NAME, PREFIX

STALL_SECONDS = 60.0
"""No token for so long, while a party decodes, is worth a look."""

_NEAR = 0.9  # of a link or of a memory: from here on it is the bottleneck, or soon fails
_HISTOGRAM_PARTS = ("_bucket", "_sum", "_count")


def rules(stall_seconds: float = STALL_SECONDS) -> dict[str, Any]:
    """The rule file: one group that records, one that alerts.

    Args:
        stall_seconds: Longest time without a token before the alert, in seconds.

    Raises:
        ValueError: That time is not positive.
    """
    if not stall_seconds > 0:
        raise ValueError(f"stall_seconds: {stall_seconds:g} is not allowed; give a positive number of seconds")
    recording = [{"record": f"mpcbench:{name}", "expr": expr} for name, expr in _recorded().items()]
    return {
        "groups": [
            {"name": "mpcbench-recording", "interval": "1s", "rules": recording},
            {"name": "mpcbench-alerts", "interval": "1s", "rules": _alerts(stall_seconds)},
        ]
    }


def _recorded() -> dict[str, str]:
    """PromQL by what it is called after `mpcbench:`: labels that stay, what it is, and over which time."""
    blocked, sent, rounds = _m("blocked_seconds_total"), _m("sent_bytes_total"), _m("rounds_total")
    left, limit = _m("memory_available_bytes"), _m("memory_limit_bytes")
    steps, tokens = _m("stage_duration_seconds_sum"), _m("tokens_total")
    return {
        "sent_bytes:rate5s": f"sum by (run, party, peer, phase) (rate({sent}[5s]))",
        "rounds:rate5s": f"sum by (run, party, stage, phase) (rate({rounds}[5s]))",
        "stage_seconds:rate5s": f"sum by (run, party, stage, phase) (rate({_m('stage_seconds_total')}[5s]))",
        "compute_seconds:rate5s": f"sum by (run, party) (rate({_m('compute_seconds_total')}[5s]))",
        "blocked_seconds:rate5s": f"sum by (run, party, peer) (rate({blocked}[5s]))",
        "cpu_seconds:rate5s": f"sum by (run, party) (rate({_m('cpu_seconds_total')}[5s]))",
        "token_seconds:mean1m": f"sum by (run, party) (increase({steps}[1m])) "
        f"/ sum by (run, party) (increase({tokens}[1m]) > 0)",
        "exchange_seconds:p99_1m": "histogram_quantile(0.99, "
        f"sum by (run, party, peer, le) (rate({_m('exchange_seconds_bucket')}[1m])))",
        "link_used:ratio10s": f"avg_over_time({_m('link_used_ratio')}[10s])",
        "memory_used:ratio": f"1 - {left} / {limit}",
        "gpu_memory_used:ratio": f"{_m('gpu_memory_used_bytes')} / {_m('gpu_memory_limit_bytes')}",
    }


def _alerts(stall_seconds: float) -> list[dict[str, Any]]:
    age, last = _m("token_age_seconds"), _m("last_token_seconds")
    stalled = f"{age} > {stall_seconds:g} unless {age} <= 5 * {last}"
    return [
        _alert(
            "PartySilent", 'up{job="mpcbench"} == 0', "5s",
            "{{ $labels.party }} of {{ $labels.run }} does not answer",
            "It is dead, stopped or cut off. The run itself notices within seconds and records the cell as failed; "
            "if it does not, look at the party's process.",
        ),
        _alert(
            "LinkSaturated", f"mpcbench:link_used:ratio10s > {_NEAR}", "10s",
            "The link from {{ $labels.party }} to {{ $labels.peer }} of {{ $labels.run }} is full",
            "It carries {{ $value | humanizePercentage }} of its measured rate: the protocol waits for bandwidth.",
        ),
        _alert(
            "MemoryNearLimit", f"mpcbench:memory_used:ratio > {_NEAR}", "5s",
            "The host of {{ $labels.party }} of {{ $labels.run }} runs out of memory",
            "{{ $value | humanizePercentage }} of what it may use is taken; at the limit the kernel kills processes.",
        ),
        _alert(
            "GpuMemoryNearLimit", f"mpcbench:gpu_memory_used:ratio > {_NEAR}", "5s",
            "The GPU of {{ $labels.party }} of {{ $labels.run }} runs out of memory",
            "{{ $value | humanizePercentage }} of it is taken; the next allocation may fail.",
        ),
        _alert(
            "NoToken", stalled, "0s",
            "{{ $labels.party }} of {{ $labels.run }} has decoded no token for {{ $value | humanizeDuration }}",
            f"That is more than {stall_seconds:g} s and more than five times what the last token took.",
        ),
    ]  # fmt: skip


def _alert(name: str, expr: str, wait: str, summary: str, description: str) -> dict[str, Any]:
    return {
        "alert": f"Mpcbench{name}",
        "expr": expr,
        "for": wait,
        "labels": {"severity": "warning"},
        "annotations": {"summary": summary, "description": description},
    }


def _m(name: str) -> str:
    """The full name of a metric, or of a part of a histogram."""
    full = PREFIX + name
    parts = [full.removesuffix(part) for part in _HISTOGRAM_PARTS if full.endswith(part)]
    if not any(metric in BY_NAME for metric in (full, *parts)):
        raise KeyError(f"{full} is not in the registry of metrics")
    return full
