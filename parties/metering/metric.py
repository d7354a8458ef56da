"""The definition of a metric: name, unit, labels and formula, and the rules for them."""

import re
from dataclasses import dataclass
from typing import Literal

PREFIX = "mpcbench_"
UNITS = ("bytes", "bytes_per_second", "seconds", "messages", "rounds", "tokens", "tokens_per_second", "ratio", "")
LABELS = ("party", "peer", "stage", "phase", "status")
RUN_INFO = f"{PREFIX}run_info"

Kind = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric as Prometheus sees it.

    Attributes:
        name: Name that starts with `mpcbench_`, then has its unit at the end, followed by `_total` for a counter.
        kind: Kind of metric; a counter only increases during the lifetime of the process that serves it.
        unit: One of `UNITS`; empty for a state, a count or a constant 1.
        help: One sentence, served to Prometheus.
        labels: `party` and possibly more of `LABELS`, so that the number of series is bounded; only
            `mpcbench_run_info` has others.
        formula: How the value is computed.
        driver: Whether the driver of the run serves it, instead of the parties.

    Raises:
        ValueError: A field breaks these rules.
    """

    name: str
    kind: Kind
    unit: str
    help: str
    labels: tuple[str, ...]
    formula: str
    driver: bool = False

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
            f"labels {self.labels} must begin with 'party'": self.labels[:1] == ("party",),
            f"labels {self.labels} must not repeat": len(set(self.labels)) == len(self.labels),
            "help and formula must be sentences that end with a full stop": self.help[-1:] + self.formula[-1:] == "..",
        }
        return [rule for rule, kept in rules.items() if not kept]
