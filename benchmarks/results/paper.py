"""Tables of docs/results/engines.md that stand next to the published claims of MPCache."""

from functools import partial

from benchmarks.results.markdown import AMOUNTS, amounts, relative, table
from benchmarks.results.sources import Tables, attention_bytes, by_link, links_of, measured, predicted
from orchestrator.report.rows import Row


def savings() -> str:
    """The bytes per token that MPCache saves with `fss`: full cache over MPCache, both parties together."""
    lines = []
    for seq_len in (512, 1024, 2048):
        both = predicted("full", seq_len), predicted("mpcache", seq_len)
        full, mpcache = (found.decode for found in both)
        online = (2 * full.sent["client"], 2 * mpcache.sent["client"])
        attended = (2 * attention_bytes(both[0]), 2 * attention_bytes(both[1]))
        everything = (full.handled, mpcache.handled)
        rounds = f"{full.rounds:g} over {mpcache.rounds:g}"
        lines.append([f"{seq_len:,}", _over(online), _over(attended), f"{everything[0] / everything[1]:.2f}", rounds])
    head = ["prompt", "online bytes", "online bytes of attention", "online and offline bytes", "online rounds"]
    return table(head, lines)


def costs(folder: str) -> str:
    """What a token costs by engine, prompt and policy; in brackets the share of the full cache's time."""
    measurements = measured(folder)
    links, found, lines = links_of(measurements), by_link(measurements, _line), []
    for (engine, seq_len, policy), line in found.items():
        full = found.get((engine, seq_len, "full"), {})
        times = [relative(line.get(link), full.get(link)) for link in links]
        lines.append([f"`{engine}`, `{policy}`", f"{seq_len:,}", *times, *amounts(line)])
    return table(["engine, policy", "prompt", *links, "online bytes of the client", *AMOUNTS[1:]], lines)


def ratios(folder: str) -> str:
    """The full cache over MPCache, as the paper states it."""
    measurements = measured(folder)
    links, found, lines = links_of(measurements), by_link(measurements, _line), []
    for (engine, seq_len, policy), line in found.items():
        full = found.get((engine, seq_len, "full"), {})
        if policy != "full" and full:
            base, row = (next(iter(each.values())) for each in (full, line))
            saved, rounds = base.online_bytes / row.online_bytes, f"{base.rounds:,g} over {row.rounds:,g}"
            times = [_faster(full.get(link), line.get(link)) for link in links]
            lines.append([f"`{engine}`", f"{seq_len:,}", f"{saved:.2f}", *times, rounds])
    times = [f"seconds, {link}" for link in links]
    return table(["engine", "prompt", "online bytes of client and server", *times, "online rounds"], lines)


def _line(row: Row) -> tuple[str, int, str]:
    return str(row.first.cell.engine), row.seq_len, row.first.cell.policy.name


def _faster(full: Row | None, row: Row | None) -> str:
    return f"{full.seconds / row.seconds:.2f}" if full is not None and row is not None else ""


def _over(pair: tuple[float, float]) -> str:
    """A ratio with its terms."""
    return f"{pair[0] / pair[1]:.2f} ({pair[0] / 1e6:.1f} over {pair[1] / 1e6:.1f} MB)"


TABLES: Tables = {
    "savings": savings,
    "spu": partial(costs, "paper_spu"),
    "spu-savings": partial(ratios, "paper_spu"),
    "layer": partial(costs, "paper_layer"),
    "layer-savings": partial(ratios, "paper_layer"),
}
