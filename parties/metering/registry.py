"""The registry of metrics: the single definition of their names, units, labels and formulas.

The exporters serve these, dashboards query them and `docs/metrics.md` lists them:
`python -m parties.metering.registry > docs/metrics.md`.
"""

import sys

from parties.metering.metric import LABELS, PREFIX, RUN_INFO, Kind, Metric
from parties.options import RunOptions

__all__ = ["BY_NAME", "CELL_STATES", "DRIVER", "LABELS", "METRICS", "PREFIX", "RUN_INFO", "Metric", "markdown"]

DRIVER = "driver"
"""Value of the label `party` on metrics of the driver about the whole run."""

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
        "Payload and frame header of each message; TCP and IP headers are not included.",
    ),
    _metric(
        "received_bytes_total", "counter", _LINK, "bytes", "Bytes received from a peer.",
        "Counted in the same way as the bytes sent.",
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
        "From the call of send, receive or exchange to its return, including a call in progress: the wire, the delay "
        "of the peer and copying.",
    ),
    _metric(
        "exchange_seconds", "histogram", _PAIR, "seconds", "Round-trip time as the protocol sees it.",
        "The blocked time of each link call of at least one round; buckets 1-2-5 from 50 microseconds to 1 s.",
    ),
)  # fmt: skip
_STAGES = (
    _metric(
        "stage_seconds_total", "counter", _STAGE, "seconds", "Wall time of a stage, without its nested stages.",
        "Each instant belongs to the innermost open stage, or to bench.idle; the stages sum to the time since the "
        "party's first cell began.",
    ),
    _metric(
        "compute_seconds_total", "counter", _STAGE, "seconds", "The part of a stage's wall time outside link calls.",
        "Stage seconds minus blocked seconds.",
    ),
    _metric(
        "gpu_kernel_seconds_total", "counter", _STAGE, "seconds", "Time in which the GPU computed for a stage.",
        "An estimate: one in eight replays of each CUDA graph is timed by CUDA events, from its launch to its end, and "
        "counts for those since the last one. Absent without a GPU.",
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
    _metric(
        "loaded_ratio", "gauge", _PARTY, "ratio", "Share of the model's matrices that the party has loaded.",
        "Elements of the matrices that were encoded, masked, sent or received, over those of all; absent once all are. "
        "The engine `fss` only.",
    ),
    _metric(
        "tokens_total", "counter", _PARTY, "tokens", "New tokens decoded.",
        "After each decoding step the tokens that it yielded, of all sequences.",
    ),
    _metric(
        "last_token_seconds", "gauge", _PARTY, "seconds", "Wall time of the last decoding step.",
        "From the start of the step to the token, including offline work in between.",
    ),
    _metric(
        "ttft_seconds", "histogram", _PARTY, "seconds", "Time to first token (TTFT).",
        "Once per cell: the first decoding step, and the prompt before it if client and server ran it themselves "
        "(`prefill: mpc`); a shared prompt runs in the clear, off the clock. Buckets 1-2-5 from 1 ms to 500 s.",
    ),
    _metric(
        "itl_seconds", "histogram", _PARTY, "seconds", "Inter-token latency (ITL).",
        "Each decoding step of a cell but the first, from one token to the next, offline work included; tokens that "
        "one step yields arrive together. The same buckets.",
    ),
    _metric(
        "tpot_seconds", "histogram", _PARTY, "seconds", "Time per output token (TPOT).",
        "Once per cell: decode time over the new tokens of a sequence, the first one included. The same buckets.",
    ),
    _metric(
        "tokens_per_second", "gauge", _PARTY, "tokens_per_second", "Throughput of the current cell.",
        "New tokens of all sequences so far over the time that they took.",
    ),
    _metric(
        "acceptance_ratio", "gauge", _PARTY, "ratio", "Share of the drafted tokens that were right.",
        "Accepted over drafted tokens of the cell so far; absent without drafts.",
    ),
    _metric(
        "token_age_seconds", "gauge", _PARTY, "seconds", "Time since the last token, or since decoding began.",
        "By the monotonic clock of the party, so that no clocks are compared; absent unless the party decodes.",
    ),
    _metric(
        "cache_tokens", "gauge", _PARTY, "tokens", "Tokens in the KV cache.",
        "Mean over the layers of the public count, decoded tokens included.",
    ),
    _metric(
        "cache_bytes", "gauge", _PARTY, "bytes", "Size of this party's part of the KV cache.",
        "Keys and values of all layers at 8 bytes per number; further state of a policy is not included.",
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
        "repeats_total", "counter", _PARTY, "", "Truncation failures after which work was repeated.",
        "1 for each repeated step; the engine `fss` only. What it reveals to holders of the masks: docs/protocols.md.",
    ),
    _metric(
        "replayed_segments_total", "counter", _PARTY, "", "Segments of tokens that were replayed.",
        "1 for each segment that a recording ran: compiled code on a CPU, CUDA graphs on a GPU; the engine `fss` only.",
    ),
    _metric(
        "interpreted_segments_total", "counter", _PARTY, "", "Segments that were not replayed.",
        "1 for each segment that was interpreted, to record it where it has a name; the engine `fss` only.",
    ),
    _metric(
        "gpu_graph_captures_total", "counter", _PARTY, "", "CUDA graphs captured.",
        "1 for each graph of a segment that was recorded; absent without a GPU.",
    ),
    _metric(
        "gpu_graph_replays_total", "counter", _PARTY, "", "CUDA graphs replayed.",
        "1 for each graph of a segment that was replayed to its end; absent without a GPU.",
    ),
    _metric(
        "dealer_backlog_bytes", "gauge", _PARTY, "bytes", "Correlated randomness that was generated and not used yet.",
        "At the dealer, bytes not yet sent; at a party, bytes in memory not yet used; the engine `fss` only.",
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
        "The memory of the host, or the limit of the cgroup of the process if that is smaller.",
    ),
    _metric(
        "memory_available_bytes", "gauge", _PARTY, "bytes", "Memory that is left before the limit.",
        "The kernel's estimate for the host, or the limit of the cgroup minus its usage if that is smaller.",
    ),
    _metric(
        "cpu_seconds_total", "counter", _PARTY, "seconds", "CPU time of the process.",
        "User and system time of all threads, since the process began.",
    ),
    _metric(
        "host_cpu_seconds_total", "counter", _PARTY, "seconds", "CPU time of all processes on the party's host.",
        "Busy time summed over the cores, since the host booted.",
    ),
    _metric("host_cores", "gauge", _PARTY, "", "CPU cores of the party's host.", "Logical cores, from the kernel."),
    _metric(
        "interface_sent_bytes_total", "counter", _PARTY, "bytes",
        "Bytes sent by the network interfaces that are visible to the party.",
        "Increase of the kernel counters of all interfaces of the party's host or network namespace, including "
        "loopback and other traffic; a removed interface stays counted.",
    ),
    _metric(
        "interface_received_bytes_total", "counter", _PARTY, "bytes",
        "Bytes received by the network interfaces that are visible to the party.",
        "Counted in the same way as the bytes sent by the interfaces.",
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
        "gpu_busy_ratio", "gauge", _PARTY, "ratio", "Fraction of the time in which the party's GPU computed.",
        "NVML's utilisation over its last sampling period; absent under the same conditions as the memory of the GPU.",
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
        "cells_left", "gauge", _PARTY, "", "Cells that have not ended, including the running one.",
        "Cells of this call minus those that ended.",
    ),
    _driver(
        "cell_elapsed_seconds", "gauge", _PARTY, "seconds", "Time since the current cell began.",
        "By the driver's monotonic clock; absent between cells.",
    ),
    _driver(
        "remaining_seconds", "gauge", _PARTY, "seconds", "Expected time to the end of the sweep.",
        "The sum of the estimates of all cells that have not ended, minus the elapsed time of the current one.",
    ),
    _driver(
        "link_asked_bytes_per_second", "gauge", _PAIR, "bytes_per_second", "Requested rate of the link to a peer.",
        "From the network of the current cell; absent if the link is not shaped.",
    ),
    _driver(
        "link_asked_rtt_seconds", "gauge", _PAIR, "seconds", "Requested round-trip time of the link to a peer.",
        "Sum of the delays of both directions in the network of the current cell; absent if the link is not shaped.",
    ),
    _driver(
        "link_asked_loss_ratio", "gauge", _PAIR, "ratio", "Requested packet loss of the link to a peer.",
        "From the network of the current cell; absent if the link is not shaped.",
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
        "link_used_ratio", "gauge", _PAIR, "ratio", "Fraction of a link's rate that the protocol used.",
        "Bytes sent to the peer in about the last second, over what the measured rate would have carried.",
    ),
)  # fmt: skip

METRICS = (*_TRAFFIC, *_STAGES, *_DECODING, *_PROCESS, *_SWEEP)
BY_NAME = {metric.name: metric for metric in METRICS}


def markdown() -> str:
    """The text of `docs/metrics.md`."""
    rows = [
        f"| `{m.name}` | {'driver' if m.driver else 'party'} | {m.kind} | {m.unit or '-'} | {', '.join(m.labels)} "
        f"| {m.help} | {m.formula} |"
        for m in METRICS
    ]
    return "\n".join((_PREAMBLE, *rows, ""))


_PREAMBLE = """# Metrics

Each party and the driver of the run serve these metrics to Prometheus while cells run. Prometheus is for monitoring;
`records.jsonl` is the record. This page is generated from the registry, `parties/metering/registry.py`, by
`python -m parties.metering.registry > docs/metrics.md`.

Every name begins with `mpcbench_`, and units are base units. Counters increase during the lifetime of the process that
serves them, over all of its cells, so that `rate()` and `increase()` may span cells; a new group of parties starts new
series. `party` and `peer` are roles: `client`, `server`, `dealer` or `referee`; metrics of the whole run have the party
`driver`. For links, `party` sends and `peer` receives. `phase` is `online`, `offline` (correlated randomness from the
dealer), `setup` (once per model) or `bench` (work that a deployment would not have); phases are never added up.

The targets carry one more label, `run`: the experiment, the time of its start and a random suffix, which is unique to
each run. The driver also serves the process metrics of its own process.

| name | served by | kind | unit | labels | meaning | how it is computed |
| --- | --- | --- | --- | --- | --- | --- |"""

if __name__ == "__main__":
    sys.stdout.write(markdown())
