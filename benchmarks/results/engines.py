"""Tables of docs/results/engines.md, and of README.md: what a token costs with each engine."""

from benchmarks.results.markdown import AMOUNTS, amounts, megabytes, relative, seconds, table
from benchmarks.results.sources import ATTENTION, attention_bytes, by_link, links_of, measured, predicted, records
from orchestrator.records.record import Record

_PROMPT = 512


def speedup() -> str:
    """The engines on a quiet machine, by prompt length."""
    found = measured("speedup")
    links, lines = links_of(found), []
    for (seq_len, engine), line in by_link(found, lambda row: (row.seq_len, str(row.first.cell.engine))).items():
        note = " (insecure)" if engine == "crypten-stock" else ""
        took = (seconds(line.get(link)) for link in links)
        lines.append([f"{seq_len:,}", f"`{engine}`{note}", *took, *amounts(line)])
    return table(["prompt", "engine", *links, *AMOUNTS], lines)


def ratios() -> str:
    """How many times longer CrypTen takes than `fss`, by prompt length."""
    found = measured("speedup")
    took = {(str(row.first.cell.engine), row.seq_len, row.network): row.seconds for row in found}
    lines = [
        [f"{seq_len:,}", link, f"{took['crypten', seq_len, link] / own:.1f}"]
        for (engine, seq_len, link), own in sorted(took.items())
        if engine == "fss"
    ]
    return table(["prompt", "link", "`crypten` over `fss`"], lines)


def three_engines() -> str:
    """Seconds, rounds and bytes per token of each engine after 512 tokens; in brackets, as multiples of `fss`."""
    found = [row for row in measured("engines") if row.seq_len == _PROMPT]
    by_engine = by_link(found, lambda row: (str(row.first.cell.engine), row.first.cell.policy.name))
    links, lines = links_of(found), []
    for (engine, policy), line in by_engine.items():
        ours = by_engine.get(("fss", policy), {})
        took = [relative(line.get(link), None if engine == "fss" else ours.get(link)) for link in links]
        lines.append([f"`{engine}`, `{policy}`", *took, *amounts(line)])
    return table(["engine, policy", *links, "online bytes of the client", *AMOUNTS[1:]], lines)


def costs() -> str:
    """Bytes, rounds and errors by engine, policy and prompt."""
    points = [(e, p, n) for e in ("crypten", "fss") for n in (128, 1024) for p in ("full", "mpcache")]
    head = ["engine, policy", "prompt", AMOUNTS[0], "of these, attention", *AMOUNTS[1:]]
    return table(head, [_cost_row(*point) for point in points])


def _cost_row(engine: str, policy: str, seq_len: int) -> list[str]:
    """A line of `costs`: counted by the run for `crypten`, predicted for `fss`; errors are those of the run."""
    cells = [record for record in records("networks") if _kind(record) == (engine, policy, seq_len)]
    sent, attended, rounds, dealt = _predicted(policy, seq_len) if engine == "fss" else _counted(cells[0])
    error = max(record.check.max_abs_logit_error or 0 for record in cells if record.check)
    numbers = [megabytes(sent), megabytes(attended), f"{rounds:,g}", megabytes(dealt), f"{error:.3f}"]
    return [f"`{cells[0].cell.engine}`, `{policy}`", f"{seq_len:,}", *numbers]


def _predicted(policy: str, seq_len: int) -> tuple[float, float, float, float]:
    """Online bytes each way, those of attention, rounds and offline bytes of a token of `fss`."""
    found = predicted(policy, seq_len)
    token = found.decode
    return token.sent["client"], attention_bytes(found), token.rounds, sum(token.dealt.values())


def _counted(record: Record) -> tuple[float, float, float, float]:
    """The same as a run counted them."""
    if record.totals is None:
        raise ValueError(f"record {record.id} has no totals; take one whose status is ok")
    attended = sum(s.sent_bytes for s in record.stages if s.party == "client" and s.stage in ATTENTION)
    online, offline = record.totals.online, record.totals.offline
    sums = (online.sent_bytes["client"], attended, online.rounds, sum(offline.sent_bytes.values()))
    first, second, third, fourth = (value / record.tokens for value in sums)
    return first, second, third, fourth


def _kind(record: Record) -> tuple[str, str, int]:
    """Engine, policy and prompt length."""
    return record.cell.engine.name, record.cell.policy.name, record.cell.seq_len


TABLES = {"speedup": speedup, "ratios": ratios, "engines": three_engines, "costs": costs}
