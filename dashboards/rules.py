"""Recording and alert rules for Prometheus, built from the registry; an unknown metric raises here.

A rate over 5 s covers at least four scrapes at one scrape per second.
"""

from typing import Any

from parties.metering.registry import BY_NAME, PREFIX

STALL_SECONDS = 60.0
"""Default time without a token, while a party decodes, before the alert, in seconds."""

_NEAR = 0.9  # fraction of a link's rate or of a memory limit from which it is a bottleneck or about to fail
_HISTOGRAM_PARTS = ("_bucket", "_sum", "_count")


def rules(stall_seconds: float = STALL_SECONDS) -> dict[str, Any]:
    """The rule file: a group of recording rules and a group of alerts.

    Args:
        stall_seconds: Time without a token before the alert, in seconds.

    Raises:
        ValueError: `stall_seconds` is not positive.
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
    """PromQL of each recording rule, by its name after the prefix `mpcbench:`."""
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
            "Its process is dead or stopped, or its host is unreachable. The run detects this within seconds and "
            "records the cell as failed; if it does not, inspect the process of the party.",
        ),
        _alert(
            "LinkSaturated", f"mpcbench:link_used:ratio10s > {_NEAR}", "10s",
            "The link from {{ $labels.party }} to {{ $labels.peer }} of {{ $labels.run }} is saturated",
            "It carries {{ $value | humanizePercentage }} of its measured rate: the protocol is limited by bandwidth.",
        ),
        _alert(
            "MemoryNearLimit", f"mpcbench:memory_used:ratio > {_NEAR}", "5s",
            "The host of {{ $labels.party }} of {{ $labels.run }} is running out of memory",
            "{{ $value | humanizePercentage }} of its memory limit is in use; at the limit the kernel kills processes.",
        ),
        _alert(
            "GpuMemoryNearLimit", f"mpcbench:gpu_memory_used:ratio > {_NEAR}", "5s",
            "The GPU of {{ $labels.party }} of {{ $labels.run }} is running out of memory",
            "{{ $value | humanizePercentage }} of its memory is in use; the next allocation may fail.",
        ),
        _alert(
            "NoToken", stalled, "0s",
            "{{ $labels.party }} of {{ $labels.run }} has decoded no token for {{ $value | humanizeDuration }}",
            f"That is more than {stall_seconds:g} s and more than five times the time of the last token.",
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
