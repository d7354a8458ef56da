"""The registry of metrics: the one place that names a number, its unit, its labels and how it is computed.

The exporter serves these, dashboards query them and `docs/metrics.md` lists them:
`python -m parties.metrics > docs/metrics.md`.
"""

import re
import sys
from dataclasses import dataclass
from typing import Literal

PREFIX = "mpcbench_"
UNITS = ("bytes", "seconds", "messages", "rounds", "tokens", "")
LABELS = ("party", "peer", "stage", "phase", "engine", "policy")
RUN_INFO = f"{PREFIX}run_info"
CELL_STATES = ("idle", "loading", "prefill", "decode", "check", "closed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric as Prometheus sees it.

    Attributes:
        name: starts with `mpcbench_`, ends with its unit, and then with `_total` if it is a counter.
        kind: a counter only grows, but may begin again at zero.
        unit: one of `UNITS`; empty for a state or a constant 1.
        help: one sentence, served to Prometheus.
        labels: some of `LABELS`, so that the number of series stays bounded; only `mpcbench_run_info` has others.
        formula: how the number comes about.

    Raises:
        ValueError: a field breaks these rules.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    unit: str
    help: str
    labels: tuple[str, ...]
    formula: str

    def __post_init__(self) -> None:
        for broken in self._broken_rules():
            raise ValueError(f"metric {self.name!r}: {broken}")

    def _broken_rules(self) -> list[str]:
        suffix = ("_" + self.unit if self.unit else "") + ("_total" if self.kind == "counter" else "")
        unbounded = [label for label in self.labels if label not in LABELS] if self.name != RUN_INFO else []
        rules = {
            f"the name must be {PREFIX} and then words of a-z and 0-9": re.fullmatch(
                PREFIX + r"[a-z0-9]+(_[a-z0-9]+)*", self.name
            ),
            f"kind {self.kind!r} must be counter, gauge or histogram": self.kind in ("counter", "gauge", "histogram"),
            f"unit {self.unit!r} must be one of {UNITS}": self.unit in UNITS,
            f"the name of a {self.kind} in {self.unit or 'no unit'} must end with {suffix!r}": self.name.endswith(
                suffix
            ),
            "only the name of a counter ends with '_total'": self.kind == "counter" or not self.name.endswith("_total"),
            f"labels {unbounded} must be some of {LABELS}": not unbounded,
            f"labels {self.labels} must not repeat": len(set(self.labels)) == len(self.labels),
            "help and formula must be sentences that end with a full stop": self.help[-1:] + self.formula[-1:] == "..",
        }
        return [rule for rule, kept in rules.items() if not kept]


_LINK = ("party", "peer", "stage", "phase")
_RUN = ("party", "engine", "policy")

METRICS = (
    Metric(
        name="mpcbench_sent_bytes_total",
        kind="counter",
        unit="bytes",
        help="Bytes sent to a peer.",
        labels=_LINK,
        formula="Payload and 16 bytes of frame header of each message; TCP and IP headers are not in it.",
    ),
    Metric(
        name="mpcbench_received_bytes_total",
        kind="counter",
        unit="bytes",
        help="Bytes received from a peer.",
        labels=_LINK,
        formula="Counted as the bytes sent.",
    ),
    Metric(
        name="mpcbench_messages_total",
        kind="counter",
        unit="messages",
        help="Messages sent to and received from a peer.",
        labels=_LINK,
        formula="1 for each frame sent and 1 for each frame received, so 2 for an exchange.",
    ),
    Metric(
        name="mpcbench_rounds_total",
        kind="counter",
        unit="rounds",
        help="Rounds of communication with a peer.",
        labels=_LINK,
        formula="1 for each exchange, 0.5 for each one-way message at either end.",
    ),
    Metric(
        name="mpcbench_blocked_seconds_total",
        kind="counter",
        unit="seconds",
        help="Wall time inside calls of the link to a peer.",
        labels=_LINK,
        formula="From the call of send, receive or exchange to its return: the wire, the peer's delay and copying.",
    ),
    Metric(
        name="mpcbench_stage_seconds_total",
        kind="counter",
        unit="seconds",
        help="Wall time of a stage, without the stages inside it.",
        labels=("party", "stage", "phase"),
        formula="Each instant belongs to the innermost open stage, or to bench.idle; "
        "the sum over stages is the time since the cell began.",
    ),
    Metric(
        name="mpcbench_exchange_seconds",
        kind="histogram",
        unit="seconds",
        help="Wall time of one exchange with a peer.",
        labels=("party", "peer"),
        formula="The blocked time of each link call of at least one round; buckets 1-2-5 from 50 microseconds to 1 s.",
    ),
    Metric(
        name="mpcbench_tokens_total",
        kind="counter",
        unit="tokens",
        help="New tokens decoded in the current cell.",
        labels=_RUN,
        formula="1 after each decoding step.",
    ),
    Metric(
        name="mpcbench_last_token_seconds",
        kind="gauge",
        unit="seconds",
        help="Wall time of the last decoding step.",
        labels=_RUN,
        formula="From the start of the step to the token, offline work that happens in between included.",
    ),
    Metric(
        name="mpcbench_cache_tokens",
        kind="gauge",
        unit="tokens",
        help="Tokens in the KV cache.",
        labels=_RUN,
        formula="Mean over the layers of the public count of tokens kept.",
    ),
    Metric(
        name="mpcbench_attended_tokens",
        kind="gauge",
        unit="tokens",
        help="Tokens that the last decoding step attended to.",
        labels=_RUN,
        formula="Mean over the layers of the public count of tokens selected.",
    ),
    Metric(
        name="mpcbench_resident_bytes",
        kind="gauge",
        unit="bytes",
        help="Resident memory of the party's process.",
        labels=("party",),
        formula="Resident set size, from the kernel.",
    ),
    Metric(
        name="mpcbench_peak_resident_bytes",
        kind="gauge",
        unit="bytes",
        help="Largest resident memory of the party's process so far.",
        labels=("party",),
        formula="VmHWM of /proc/self/status, since the process began.",
    ),
    Metric(
        name="mpcbench_cpu_seconds_total",
        kind="counter",
        unit="seconds",
        help="CPU time of the party's process.",
        labels=("party",),
        formula="User and system time of all threads, since the process began.",
    ),
    Metric(
        name="mpcbench_interface_sent_bytes_total",
        kind="counter",
        unit="bytes",
        help="Bytes sent by the network interfaces that the party sees.",
        labels=("party",),
        formula="Kernel counters summed over the interfaces of the party's host or network namespace, "
        "loopback and the traffic of others included.",
    ),
    Metric(
        name="mpcbench_interface_received_bytes_total",
        kind="counter",
        unit="bytes",
        help="Bytes received by the network interfaces that the party sees.",
        labels=("party",),
        formula="Counted as the bytes sent by the interfaces.",
    ),
    Metric(
        name="mpcbench_gpu_allocated_bytes",
        kind="gauge",
        unit="bytes",
        help="GPU memory that the party's tensors occupy.",
        labels=("party",),
        formula="PyTorch's allocator on the current device; absent while the process has not used a GPU.",
    ),
    Metric(
        name="mpcbench_gpu_peak_allocated_bytes",
        kind="gauge",
        unit="bytes",
        help="Largest GPU memory that the party's tensors occupied so far.",
        labels=("party",),
        formula="PyTorch's allocator on the current device; absent while the process has not used a GPU.",
    ),
    Metric(
        name="mpcbench_cell_state",
        kind="gauge",
        unit="",
        help=f"What the party is doing: {', '.join(f'{i} {state}' for i, state in enumerate(CELL_STATES))}.",
        labels=("party",),
        formula="Set by the party as the cell proceeds.",
    ),
    Metric(
        name=RUN_INFO,
        kind="gauge",
        unit="",
        help="Always 1; its labels are the parameters of the current cell.",
        labels=(*_RUN, "parameters", "model", "seq_len", "new_tokens", "prefill", "argmax", "seed"),
        formula="Join it to bring a parameter into a query: X * on (party) group_left (seq_len) mpcbench_run_info.",
    ),
)

BY_NAME = {metric.name: metric for metric in METRICS}


def markdown() -> str:
    """`docs/metrics.md`, as the registry has it."""
    rows = [
        f"| `{m.name}` | {m.kind} | {m.unit or '-'} | {', '.join(m.labels)} | {m.help} | {m.formula} |" for m in METRICS
    ]
    return "\n".join((_PREAMBLE, *rows, ""))


_PREAMBLE = """# Metrics

Each party serves these to Prometheus while a cell runs. Prometheus is for watching; `records.jsonl` is the record.
This page is generated from the registry, `parties/metrics.py`, by `python -m parties.metrics > docs/metrics.md`.

Every name begins with `mpcbench_` and units are base units. Counters of stages, links and tokens begin again at zero
with each cell; those of the process and of the interfaces do not.
`party` and `peer` are roles: `client`, `server`, `dealer` or `referee`. `phase` is `online`, `offline` (the dealer's
randomness) or `bench` (what a deployment would not have); phases are never added up.

| name | kind | unit | labels | meaning | how it is computed |
| --- | --- | --- | --- | --- | --- |"""

if __name__ == "__main__":
    sys.stdout.write(markdown())
