"""The registry of metrics: the one place that names a number, its unit, its labels and how it is computed.

The exporters serve these, dashboards query them and `docs/metrics.md` lists them:
`python -m parties.metering.registry > docs/metrics.md`.
"""

import sys

from parties.metering.metric import LABELS, PREFIX, RUN_INFO, Kind, Metric
from parties.options import RunOptions

__all__ = ["BY_NAME", "CELL_STATES", "DRIVER", "LABELS", "METRICS", "PREFIX", "RUN_INFO", "Metric", "markdown"]

DRIVER = "driver"
"""Value of the label `party` on what the driver says of the run as a whole."""

CELL_STATES = ("idle", "loading", "prefill", "decode", "check", "closed")

_PARTY = ("party",)
_LINK = ("party", "peer", "stage", "phase")
_STAGE = ("party", "stage", "phase")
_PAIR = ("party", "peer")


def _metric(name: str, kind: Kind, labels: tuple[str, ...], unit: str, help: str, formula: str) -> Metric:  # noqa: A002
    return Metric(name=PREFIX + name, kind=kind, unit=unit, help=help, labels=labels, formula=formula)


def _driver(name: str, kind: Kind, labels: tuple[str, ...], unit: str, help: str, formula: str) -> Metric:  # noqa: A002
    return Metric(name=PREFIX + name, kind=kind, unit=unit, help=help, labels=labels, formula=formula, driver=True)


_TRAFFIC = (
    _metric(
        "sent_bytes_total", "counter", _LINK, "bytes", "Bytes sent to a peer.",
        "Payload and frame header of each message; TCP and IP headers are not in it.",
    ),
    _metric(
        "received_bytes_total", "counter", _LINK, "bytes", "Bytes received from a peer.", "Counted as the bytes sent."
    ),
    _metric(
        "messages_total", "counter", _LINK, "messages", "Messages sent to and received from a peer.",
        "1 for each frame sent and 1 for each frame received, so 2 for an exchange.",
    ),
    _metric(
        "rounds_total", "counter", _LINK, "rounds", "Rounds of communication with a peer.",
        "1 for each exchange, 0.5 for each one-way message at either end.",
    ),
    _metric(
        "blocked_seconds_total", "counter", _LINK, "seconds", "Wall time inside calls of the link to a peer.",
        "From the call of send, receive or exchange to its return, a call under way included: the wire, the peer's "
        "delay and copying.",
    ),
    _metric(
        "exchange_seconds", "histogram", _PAIR, "seconds", "Round-trip time as the protocol sees it.",
        "The blocked time of each link call of at least one round; buckets 1-2-5 from 50 microseconds to 1 s.",
    ),
)  # fmt: skip
_STAGES = (
    _metric(
        "stage_seconds_total", "counter", _STAGE, "seconds", "Wall time of a stage, without the stages inside it.",
        "Each instant belongs to the innermost open stage, or to bench.idle; the stages sum to the time since the "
        "party's first cell began.",
    ),
    _metric(
        "compute_seconds_total", "counter", _STAGE, "seconds", "The part of a stage's wall time outside link calls.",
        "Stage seconds less blocked seconds.",
    ),
    _metric(
        "stage_duration_seconds", "histogram", _STAGE, "seconds", "Wall time of a stage within one decoding step.",
        "Stage seconds between one token and the next, observed at each token; buckets 1-3-10 from 1 ms to 30 s.",
    ),
)  # fmt: skip
_DECODING = (
    _metric(
        "cell_state", "gauge", _PARTY, "",
        f"What the party is doing: {', '.join(f'{i} {state}' for i, state in enumerate(CELL_STATES))}.",
        "Set by the party as the cell proceeds.",
    ),
    _metric("tokens_total", "counter", _PARTY, "tokens", "New tokens decoded.", "1 after each decoding step."),
    _metric(
        "last_token_seconds", "gauge", _PARTY, "seconds", "Wall time of the last decoding step.",
        "From the start of the step to the token, offline work that happens in between included.",
    ),
    _metric(
        "token_age_seconds", "gauge", _PARTY, "seconds", "Time since the last token, or since decoding began.",
        "By the party's own monotonic clock, so that no clocks are compared; absent unless the party decodes.",
    ),
    _metric(
        "cache_tokens", "gauge", _PARTY, "tokens", "Tokens in the KV cache.",
        "Mean over the layers of the public count, decoded tokens included.",
    ),
    _metric(
        "cache_bytes", "gauge", _PARTY, "bytes", "Size of this party's part of the KV cache.",
        "Keys and values of all layers at 8 bytes a number; what a policy keeps beside them is not in it.",
    ),
    _metric(
        "kept_tokens", "gauge", _PARTY, "tokens", "Tokens of the prompt that the policy kept.",
        "Mean over the layers of the public count after prefill.",
    ),
    _metric(
        "selected_tokens", "gauge", _PARTY, "tokens", "Tokens that the last decoding step attended to.",
        "Mean over the layers of the public count of tokens selected.",
    ),
    _metric(
        "repeats_total", "counter", _PARTY, "", "Times that a truncation met its danger zone and work was repeated.",
        "1 for each repeated step; the engine `fss` only. What it tells who knows the masks: docs/protocols.md.",
    ),
    _metric(
        "dealer_backlog_bytes", "gauge", _PARTY, "bytes", "Correlated randomness that is made and not used yet.",
        "At the dealer what waits to be sent; at a party what waits in memory to be used; the engine `fss` only.",
    ),
)  # fmt: skip
_PROCESS = (
    _metric(
        "resident_bytes", "gauge", _PARTY, "bytes", "Resident memory of the process.",
        "Resident set size, from the kernel.",
    ),
    _metric(
        "peak_resident_bytes", "gauge", _PARTY, "bytes", "Largest resident memory of the process so far.",
        "VmHWM of /proc/self/status, since the process began.",
    ),
    _metric(
        "memory_limit_bytes", "gauge", _PARTY, "bytes", "Memory that all processes of the party's host may use.",
        "The host's memory, or the limit of the process's cgroup if that is less.",
    ),
    _metric(
        "memory_available_bytes", "gauge", _PARTY, "bytes", "Memory that is left before the limit.",
        "The kernel's estimate for the host, or the limit of the cgroup less its usage if that is less.",
    ),
    _metric(
        "cpu_seconds_total", "counter", _PARTY, "seconds", "CPU time of the process.",
        "User and system time of all threads, since the process began.",
    ),
    _metric(
        "host_cpu_seconds_total", "counter", _PARTY, "seconds", "CPU time of everything on the party's host.",
        "Busy time summed over the cores, since the host booted.",
    ),
    _metric("host_cores", "gauge", _PARTY, "", "CPU cores of the party's host.", "Logical cores, from the kernel."),
    _metric(
        "interface_sent_bytes_total", "counter", _PARTY, "bytes",
        "Bytes sent by the network interfaces that the party sees.",
        "Growth of the kernel counters of all interfaces of the party's host or network namespace, loopback and the "
        "traffic of others included; an interface that goes takes nothing away.",
    ),
    _metric(
        "interface_received_bytes_total", "counter", _PARTY, "bytes",
        "Bytes received by the network interfaces that the party sees.", "Counted as the bytes sent by the interfaces.",
    ),
    _metric(
        "gpu_allocated_bytes", "gauge", _PARTY, "bytes", "GPU memory that the party's tensors occupy.",
        "PyTorch's allocator on the current device; absent while the process has not used a GPU.",
    ),
    _metric(
        "gpu_peak_allocated_bytes", "gauge", _PARTY, "bytes", "Largest GPU memory that the party's tensors occupied.",
        "PyTorch's allocator on the current device; absent while the process has not used a GPU.",
    ),
    _metric(
        "gpu_memory_used_bytes", "gauge", _PARTY, "bytes", "Memory in use on the party's GPU, by all processes.",
        "NVML, for the process's current device; absent without NVML or while the process has not used a GPU.",
    ),
    _metric(
        "gpu_memory_limit_bytes", "gauge", _PARTY, "bytes", "Memory of the party's GPU.",
        "NVML, for the process's current device; absent without NVML or while the process has not used a GPU.",
    ),
    _metric(
        "gpu_busy_ratio", "gauge", _PARTY, "ratio", "Share of the time in which the party's GPU computed.",
        "NVML's utilisation over its last sampling period; absent as the GPU's memory is.",
    ),
)  # fmt: skip
_SWEEP = (
    Metric(
        name=RUN_INFO, kind="gauge", unit="", help="Always 1; its labels are the parameters of the current cell.",
        labels=(
            "party", "cell", "engine", "policy", "parameters", "model", "seq_len", "new_tokens", "network",
            *RunOptions.model_fields, "seed", "repeat",
        ),
        formula="Join it to bring a parameter into a query: X * on (run) group_left (policy) mpcbench_run_info.",
        driver=True,
    ),
    _driver(
        "cells_finished_total", "counter", ("party", "status"), "", "Cells that ended, by the status of their record.",
        "1 when a cell's record is written; `ok` and `incorrect` were measured, all others failed.",
    ),
    _driver(
        "cells_left", "gauge", _PARTY, "", "Cells still to be finished, the running one included.",
        "Cells of this call less those that ended.",
    ),
    _driver(
        "cell_elapsed_seconds", "gauge", _PARTY, "seconds", "Time since the current cell began.",
        "By the driver's monotonic clock; absent between cells.",
    ),
    _driver(
        "remaining_seconds", "gauge", _PARTY, "seconds", "Expected time to the end of the sweep.",
        "The estimate of every cell that is left, less what the current one has taken.",
    ),
    _driver(
        "link_asked_bytes_per_second", "gauge", _PAIR, "bytes_per_second", "Rate asked of the link to a peer.",
        "The network of the current cell; absent where the link is left as it is.",
    ),
    _driver(
        "link_asked_rtt_seconds", "gauge", _PAIR, "seconds", "Round-trip time asked of the link to a peer.",
        "The delays of both directions of the current cell's network; absent where the link is left as it is.",
    ),
    _driver(
        "link_asked_loss_ratio", "gauge", _PAIR, "ratio", "Packet loss asked of the link to a peer.",
        "The network of the current cell; absent where the link is left as it is.",
    ),
    _driver(
        "link_measured_bytes_per_second", "gauge", _PAIR, "bytes_per_second", "Measured rate of the link to a peer.",
        "TCP payload before the current cell, or after it once it is over.",
    ),
    _driver(
        "link_measured_rtt_seconds", "gauge", _PAIR, "seconds", "Measured round-trip time of the link to a peer.",
        "Median of 64-byte messages on the idle link before the current cell, or after it once it is over.",
    ),
    _driver(
        "link_used_ratio", "gauge", _PAIR, "ratio", "Share of a link's rate that the protocol used.",
        "Bytes sent to the peer over the last second or so, over what the measured rate would have carried.",
    ),
)  # fmt: skip

METRICS = (*_TRAFFIC, *_STAGES, *_DECODING, *_PROCESS, *_SWEEP)
BY_NAME = {metric.name: metric for metric in METRICS}


def markdown() -> str:
    """`docs/metrics.md`, as the registry has it."""
    rows = [
        f"| `{m.name}` | {'driver' if m.driver else 'party'} | {m.kind} | {m.unit or '-'} | {', '.join(m.labels)} "
        f"| {m.help} | {m.formula} |"
        for m in METRICS
    ]
    return "\n".join((_PREAMBLE, *rows, ""))


_PREAMBLE = """# Metrics

Each party, and the driver of the run, serves these to Prometheus while cells run. Prometheus is for watching;
`records.jsonl` is the record. This page is generated from the registry, `parties/metering/registry.py`, by
`python -m parties.metering.registry > docs/metrics.md`.

Every name begins with `mpcbench_` and units are base units. Counters grow for as long as the process that serves them
lives, over all of its cells, so that `rate()` and `increase()` may span cells; a new group of parties is new series.
`party` and `peer` are roles: `client`, `server`, `dealer` or `referee`; what concerns the run as a whole has the party
`driver`. For links, `party` sends and `peer` receives. `phase` is `online`, `offline` (the dealer's randomness),
`setup` (once a model) or `bench` (what a deployment would not have); phases are never added up.

The targets carry one label more, `run`: the experiment, the time of its start and a random suffix, so that no two runs
are taken for one. The driver serves the process metrics of its own process too.

| name | served by | kind | unit | labels | meaning | how it is computed |
| --- | --- | --- | --- | --- | --- | --- |"""

if __name__ == "__main__":
    sys.stdout.write(markdown())
