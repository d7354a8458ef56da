"""Writes the tables of README.md and docs/results/README.md from the records: `python -m benchmarks.results`.

A table stands between `<!-- table: NAME -->` and `<!-- end of table -->`; the prose around it is written by hand.
Seconds and errors come from docs/results/*/records.jsonl, answers from docs/results/quality/*/results.jsonl. Bytes and
rounds of `fss` are the exact predictions of `mpcache-bench cost`. `--check` writes nothing and fails if a table is out
of date.
"""

import argparse
import re
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

from orchestrator.experiment.cells import expand
from orchestrator.experiment.experiment import Experiment
from orchestrator.predict.forecast import Forecast, forecast
from orchestrator.quality.averages import Line, lines_of
from orchestrator.quality.results import ResultStore
from orchestrator.records.record import Record
from orchestrator.records.store import RecordStore
from orchestrator.report.rows import Row, rows
from parties.models.architecture import ARCHITECTURES

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results"
PAGES = (ROOT / "README.md", RESULTS / "README.md")

MPCACHE = {"name": "mpcache", "static_keep": 0.4, "select": 0.2}
ATTENTION = ("similarity", "topk", "gather", "scores", "softmax", "attend")
TASKS = ("needle_single", "needle_multikey")

_TABLE = re.compile(r"(<!-- table: ([\w-]+) -->\n).*?(<!-- end of table -->)", re.DOTALL)


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the tables of measured results again.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a table is out of date")
    only_check = parser.parse_args().check
    stale = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        if (now := filled(text)) != text:
            stale.append(str(page.relative_to(ROOT)))
            if not only_check:
                page.write_text(now, encoding="utf-8")
    print(", ".join(stale) or "all tables", "out of date" if only_check and stale else "up to date")
    sys.exit(1 if only_check and stale else 0)


def filled(text: str) -> str:
    """The page with every table as the records have it."""
    return _TABLE.sub(lambda found: f"{found[1]}\n{TABLES[found[2]]()}\n\n{found[3]}", text)


def tables_of(text: str) -> dict[str, str]:
    """The tables of a page as they stand there, by name."""
    return {name: whole for whole, name in ((found[0], found[2]) for found in _TABLE.finditer(text))}


# Sources


@cache
def records(folder: str) -> tuple[Record, ...]:
    """The records of a committed run."""
    return tuple(RecordStore(RESULTS / folder).latest().values())


@cache
def predicted(policy: str, seq_len: int) -> Forecast:
    """One decoded token of `fss` with SmolLM2-135M."""
    asked: dict[str, Any] = {
        "name": "results",
        "model": "smollm2-135m",
        "prompt": {"random_tokens": True},
        "engines": ["fss"],
        "policies": [MPCACHE if policy == "mpcache" else policy],
        "seq_lens": [seq_len],
        "new_tokens": 1,
        "comparison": "dcf",
    }
    (cell,) = expand(Experiment.model_validate(asked))
    return forecast(cell)


def measured(folder: str) -> list[Row]:
    """A row for each measured point, repeats taken together."""
    return rows(records(folder))


def attention_bytes(found: Forecast) -> float:
    """The part of the online bytes each way that attention takes."""
    return sum(stage.sent["client"] for stage in found.decode.stages if stage.stage in ATTENTION)


# Tables


def speedup() -> str:
    """Both engines on a quiet machine, one row per engine."""
    found = measured("speedup")
    lines = []
    for engine, note in (("crypten", ""), ("crypten-stock", " (insecure)"), ("fss", "")):
        by_link = {row.network: row for row in found if str(row.first.cell.engine) == engine}
        lan = by_link["lan"]
        lines.append(
            [
                f"`{engine}`{note}",
                *(f"{by_link[link].seconds:.3g} s" if link in by_link else "" for link in ("lan", "wan")),
                megabytes(lan.client_bytes),
                f"{lan.rounds:,g}",
                megabytes(lan.offline_bytes),
                f"{max(row.error or 0 for row in by_link.values()):.3f}",
            ]
        )
    head = ["engine", "lan", "wan", "online bytes, each way", "online rounds", "offline bytes", "largest logit error"]
    return table(head, lines)


def ratios() -> str:
    """How many times longer CrypTen takes than `fss`."""
    seconds = {(str(row.first.cell.engine), row.network): row.seconds for row in measured("speedup")}
    lines = [[link, f"{seconds['crypten', link] / seconds['fss', link]:.1f}"] for link in ("lan", "wan")]
    return table(["link", "`crypten` over `fss`"], lines)


def costs() -> str:
    """Bytes, rounds and errors by engine, policy and prompt."""
    points = [(e, p, n) for e in ("crypten", "fss") for n in (128, 1024) for p in ("full", "mpcache")]
    head = ["engine, policy", "prompt", "online bytes, each way", "of these, attention", "online rounds"]
    return table([*head, "offline bytes", "largest logit error"], [cost_row(*point) for point in points])


def cost_row(engine: str, policy: str, seq_len: int) -> list[str]:
    """One row of `costs`: counted by the run for `crypten`, predicted for `fss`; errors are those of the run."""
    cells = [record for record in records("networks") if kind(record) == (engine, policy, seq_len)]
    sent, attended, rounds, dealt = of_prediction(policy, seq_len) if engine == "fss" else of_record(cells[0])
    error = max(record.check.max_abs_logit_error or 0 for record in cells if record.check)
    amounts = [megabytes(sent), megabytes(attended), f"{rounds:,g}", megabytes(dealt), f"{error:.3f}"]
    return [f"`{cells[0].cell.engine}`, `{policy}`", f"{seq_len:,}", *amounts]


def of_prediction(policy: str, seq_len: int) -> tuple[float, float, float, float]:
    """Online bytes each way, those of attention, rounds and offline bytes of a token of `fss`."""
    found = predicted(policy, seq_len)
    token = found.decode
    return token.sent["client"], attention_bytes(found), token.rounds, sum(token.dealt.values())


def of_record(record: Record) -> tuple[float, float, float, float]:
    """The same as a run counted them."""
    if record.totals is None:
        raise ValueError(f"record {record.id} has no totals; take one whose status is ok")
    attended = sum(s.sent_bytes for s in record.stages if s.party == "client" and s.stage in ATTENTION)
    online, offline = record.totals.online, record.totals.offline
    sums = (online.sent_bytes["client"], attended, online.rounds, sum(offline.sent_bytes.values()))
    first, second, third, fourth = (value / record.tokens for value in sums)
    return first, second, third, fourth


def kind(record: Record) -> tuple[str, str, int]:
    """Engine, policy and prompt length."""
    return record.cell.engine.name, record.cell.policy.name, record.cell.seq_len


def seconds() -> str:
    """Seconds per token on three links, medians with the shortest and the longest run."""
    links = ("lan", "wan-1g-10ms", "wan")
    found: dict[tuple[str, str, int], dict[str, Row]] = {}
    for row in measured("networks"):
        cell = row.first.cell
        found.setdefault((str(cell.engine), cell.policy.name, row.seq_len), {})[row.network] = row
    lines = [
        [f"`{engine}`, `{policy}`", f"{seq_len:,}", *(spread(by_link.get(link)) for link in links)]
        for (engine, policy, seq_len), by_link in sorted(found.items())
    ]
    return table(["engine, policy", "prompt", *links], lines)


def spread(row: Row | None) -> str:
    """Median, and the range of the repeats."""
    if row is None:
        return ""
    return f"{row.seconds:.3g} s ({row.low:.3g} to {row.high:.3g})"


def pays() -> str:
    """Seconds per token by length, policy and link, and those as a share of the full cache's."""
    found: dict[tuple[int, str], dict[str, Row]] = {}
    for row in measured("pays"):
        found.setdefault((row.seq_len, str(row.first.cell.policy)), {})[row.network] = row
    lines = []
    for (seq_len, policy), by_link in sorted(found.items()):
        full, any_link = found.get((seq_len, "full"), {}), next(iter(by_link.values()))
        seconds = [relative(by_link.get(link), full.get(link)) for link in ("lan", "wan")]
        amounts = [megabytes(any_link.client_bytes), f"{any_link.rounds:,g}", megabytes(any_link.offline_bytes)]
        error = max(row.error or 0 for row in by_link.values())
        lines.append([f"{seq_len:,}", f"`{policy}`", *seconds, *amounts, f"{error:.3f}"])
    head = ["prompt", "policy", "lan", "wan", "online bytes, each way", "online rounds", "offline bytes"]
    return table([*head, "largest logit error"], lines)


def relative(row: Row | None, full: Row | None) -> str:
    """Seconds, and the share of the full cache's."""
    if row is None:
        return ""
    return f"{row.seconds:.3g} s" + (f" ({row.seconds / full.seconds:.2f})" if full is not None else "")


def batches() -> str:
    """Tokens per second of all sequences together in the online phase, by the number of sequences."""
    found: dict[tuple[str, str], dict[int, Row]] = {}
    for row in measured("batch"):
        found.setdefault((row.network, str(row.first.cell.policy)), {})[row.first.cell.batch] = row
    lines = []
    for (link, policy), by_batch in sorted(found.items()):
        speed = {batch: batch / row.online_seconds for batch, row in by_batch.items()}
        amounts = [f"{speed[batch]:.3g}" if batch in speed else "" for batch in (1, 4)]
        gain = f"{speed[4] / speed[1]:.1f}" if {1, 4} <= speed.keys() else ""
        lines.append([link, f"`{policy}`", *amounts, gain])
    return table(["link", "policy", "1 sequence", "4 sequences", "gain"], lines)


def engines() -> str:
    """Seconds, rounds and bytes per token of each engine after 512 tokens."""
    found: dict[tuple[str, str], dict[str, Row]] = {}
    for row in measured("engines"):
        if row.seq_len == 512:
            found.setdefault((str(row.first.cell.engine), row.first.cell.policy.name), {})[row.network] = row
    lines = []
    for (engine, policy), by_link in sorted(found.items()):
        row = next(iter(by_link.values()))
        seconds = [f"{by_link[link].seconds:.3g} s" if link in by_link else "" for link in ("lan", "wan")]
        amounts = [megabytes(row.client_bytes), f"{row.rounds:,g}", megabytes(row.offline_bytes)]
        lines.append([f"`{engine}`, `{policy}`", *seconds, *amounts, f"{row.error or 0:.3f}"])
    head = ["engine, policy", "lan", "wan", "online bytes of the client", "online rounds", "offline bytes"]
    return table([*head, "largest logit error"], lines)


def savings() -> str:
    """The bytes per token that MPCache saves: full cache over MPCache, both parties together."""
    lines = []
    for seq_len in (512, 1024, 2048):
        both = predicted("full", seq_len), predicted("mpcache", seq_len)
        full, mpcache = (found.decode for found in both)
        online = (2 * full.sent["client"], 2 * mpcache.sent["client"])
        attended = (2 * attention_bytes(both[0]), 2 * attention_bytes(both[1]))
        everything = (full.handled, mpcache.handled)
        rounds = f"{full.rounds:g} over {mpcache.rounds:g}"
        lines.append([f"{seq_len:,}", over(online), over(attended), f"{everything[0] / everything[1]:.2f}", rounds])
    head = ["prompt", "online bytes", "online bytes of attention", "online and offline bytes", "online rounds"]
    return table(head, lines)


def over(pair: tuple[float, float]) -> str:
    """A ratio with its terms."""
    return f"{pair[0] / pair[1]:.2f} ({pair[0] / 1e6:.1f} over {pair[1] / 1e6:.1f} MB)"


def needles(length: int) -> str:
    """Share of the needles that each policy finds."""
    lines = lines_of(ResultStore(RESULTS / "quality" / f"{length}").read())
    asked = [(task, question) for task in TASKS for question in ("visible", "hidden")]
    head = ["policy", "cached", "attended", *(f"{task}, {question}" for task, question in asked)]
    return table(head, [[f"`{line.name}`", share(line.cached), share(line.attended), *shares(line)] for line in lines])


def fidelity() -> str:
    """KL divergence from the full cache by policy, and that of a selection ahead over that of the layer's own query."""
    found: dict[str, dict[int, float]] = {}
    for result in ResultStore(RESULTS / "quality" / "ahead").read():
        point = result.point
        if point.policy is not None and point.policy.name == "mpcache":
            found.setdefault(str(point.policy), {})[point.sample] = result.values["kl"]
    lines = []
    for policy, by_window in found.items():
        own = found.get(policy.replace(", ahead=True", "").replace("(ahead=True)", ""), {})
        both = sorted(by_window.keys() & own.keys())
        ratio = sum(by_window[window] for window in both) / sum(own[window] for window in both) if both else 1.0
        kl = list(by_window.values())
        error = statistics.stdev(kl) / len(kl) ** 0.5
        note = f"{ratio:.2f} ({len(both)} windows)" if "ahead=True" in policy else ""
        lines.append([f"`{policy}`", f"{len(kl)}", f"{statistics.mean(kl):.3f} ({error:.3f})", note])
    return table(["policy", "windows", "KL (standard error), nats", "over the own query"], lines)


def shares(line: Line) -> list[str]:
    """A policy's answers, single needle and several keys, with the question in sight and without."""
    return [f"{line.columns[task, q, 'accuracy'].value:.1f}" for task in TASKS for q in ("visible", "hidden")]


def families() -> str:
    """Largest error of a logit of each family of models in each private engine."""
    engines, lines = ("fss", "crypten"), []
    for family in (family for family in ARCHITECTURES if (RESULTS / "families" / family).exists()):
        found = {str(record.cell.engine): record.check for record in records(f"families/{family}")}
        errors = [check.max_abs_logit_error for engine in engines if (check := found[engine]) is not None]
        lines.append([f"`{family}`", *(f"{error or 0:.4f}" for error in errors)])
    return table(["family", *(f"`{engine}`" for engine in engines)], lines)


def machine(folder: str) -> str:
    """The hardware of a run, in a line."""
    found = records(folder)
    first, last = min(record.started for record in found), max(record.finished for record in found)

    def facts(name: str) -> str:
        return ", ".join(sorted({record.versions[name] for record in found if record.versions.get(name)}))

    return (
        f"*{len(found)} records, {first:%Y-%m-%d %H:%M} to {last:%H:%M} UTC. Machine: {facts('cpu')}, {facts('cores')} "
        f"cores, {facts('memory_gib')} GiB; {facts('kernel')}.\nPython {facts('python')}, torch {facts('torch')}, "
        f"CrypTen {facts('crypten')},\nmpcache-bench {facts('mpcache-bench')} at commit {facts('commit')}.*"
    )


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A Markdown table whose amounts are aligned to the right."""
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, rule, *lines))


def megabytes(size: float) -> str:
    """Bytes in MB: one decimal below 100 MB."""
    return f"{size / 1e6:,.1f} MB" if size < 1e8 else f"{size / 1e6:,.0f} MB"


def share(value: float) -> str:
    """A share in per cent."""
    return f"{100 * value:.3g} %"


TABLES: dict[str, Callable[[], str]] = {
    "speedup": speedup,
    "ratios": ratios,
    "costs": costs,
    "seconds": seconds,
    "pays": pays,
    "batches": batches,
    "engines": engines,
    "savings": savings,
    "needles-2048": partial(needles, 2048),
    "needles-4096": partial(needles, 4096),
    "fidelity": fidelity,
    "families": families,
    **{f"machine-{name}": partial(machine, name) for name in ("speedup", "networks", "pays", "batch", "engines")},
}

if __name__ == "__main__":
    main()
