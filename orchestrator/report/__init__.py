"""The report of a run, from the records alone.

One HTML file that needs nothing else; Markdown with its figures; the main table as CSV and for LaTeX.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup
from matplotlib.figure import Figure

from orchestrator.records.pays import Curve, load_curves
from orchestrator.records.record import Record
from orchestrator.records.store import RECORDS, RecordStore, StoreError
from orchestrator.report import words
from orchestrator.report.bench_work import bench_work
from orchestrator.report.export import csv_of, latex_of, parquet_of
from orchestrator.report.figures import Panel, as_png, as_svg, breakdown, by_batch, by_length, by_link
from orchestrator.report.fit import Link, fits, link_of
from orchestrator.report.links import link_rows
from orchestrator.report.pays import draw_pays
from orchestrator.report.prompts import prompt_rows
from orchestrator.report.rows import Row, against_crypten, against_full, longest, rows, stage_rows
from orchestrator.report.serving import NUMBERS, batch_rows, recording_words, serving_rows, ttft_words
from orchestrator.report.summary import summarise
from orchestrator.report.timelines import draw_timelines

_SECONDS = Panel(
    "Decode time, online + offline",
    "seconds per token (TPOT)",
    lambda row: row.seconds,
    lambda row: (row.low, row.high),
)
_ROUNDS = Panel("Online rounds", "rounds per token", lambda row: row.rounds)
_ONLINE = Panel("Online bytes, both ways", "MB per token", lambda row: row.online_bytes / 1e6)
_OFFLINE = Panel("Offline bytes", "MB per token", lambda row: row.offline_bytes / 1e6)
_THROUGHPUT = Panel("Throughput", "tokens per second, all sequences", lambda row: row.batch / row.seconds)
_LATENCY = Panel("Latency", "seconds from token to token (TPOT)", lambda row: row.seconds)
_PAYS = (
    "Each policy's time per token over that of the full cache, for each network: below 1 it is faster. Filled points "
    "are medians of cells; hollow ones are predictions of the cost model, which start from the records."
)


@dataclass(frozen=True)
class Picture:
    """A figure with the name of its file and its caption."""

    name: str
    caption: str
    figure: Figure


def render(run_dir: Path, known: Sequence[Record] | None = None) -> tuple[Path, Path]:
    """Writes `report.html`, `report.md` with its figures, and the main table as CSV, Parquet and LaTeX.

    Args:
        run_dir: A folder with `records.jsonl`, and `pays.json` if the run wrote one.
        known: The latest record of each cell; read from the folder if left out.

    Returns:
        Paths of the HTML and of the Markdown.

    Raises:
        StoreError: There are no records, or the folder cannot be written.
    """
    store = RecordStore(run_dir)
    records = list(store.latest().values() if known is None else known)
    if not records:
        raise StoreError(f"{run_dir / RECORDS} holds no records; run an experiment with --out {run_dir} first")
    content = _content(records, store.warnings, load_curves(run_dir))
    html, text, figures = run_dir / "report.html", run_dir / "report.md", run_dir / "figures"
    try:
        figures.mkdir(exist_ok=True)
        for picture in (*content["pictures"], *content["pays_pictures"]):
            (figures / f"{picture.name}.png").write_bytes(as_png(picture.figure))
        content["timelines"] = [
            (record, Picture(f"series-{record.id}", str(record.cell), figure))
            for record, figure in draw_timelines(run_dir, records)
        ]
        html.write_text(_environment().get_template("report.html.j2").render(content), encoding="utf-8")
        text.write_text(_environment().get_template("report.md.j2").render(content), encoding="utf-8")
        (run_dir / "report.csv").write_text(csv_of(content["rows"]), encoding="utf-8")
        (run_dir / "report.parquet").write_bytes(parquet_of(content["rows"]))
        (run_dir / "report.tex").write_text(latex_of(content["rows"]), encoding="utf-8")
    except OSError as error:
        raise StoreError(
            f"cannot write the report to {run_dir}: {error.strerror}; make room and render again"
        ) from error
    return html, text


def _content(records: Sequence[Record], corrupt: Sequence[str], curves: Sequence[Curve]) -> dict[str, Any]:
    measured = rows(records)
    ratios = against_full(measured)
    shown = longest([row for row in measured if row.private]) or longest(measured)
    return {
        "summary": summarise(records),
        "rows": measured,
        "ratios": ratios,
        "speedups": against_crypten(measured),
        "fits": fits(measured),
        "headlines": [(row, next((ratio for ratio in ratios if ratio.row is row), None)) for row in shown],
        "stages": [(row, stage_rows(row)) for row in shown],
        "prompts": prompt_rows(measured),
        "serving": (serving := serving_rows(measured)),
        "ttft": ttft_words(serving),
        "recording": recording_words(serving),
        "serving_numbers": list(NUMBERS),
        "bench_work": bench_work(records),
        "pays": curves,
        "pays_pictures": [Picture("pays", _PAYS, draw_pays(curves))] if curves else [],
        "failures": [record for record in records if not record.status.measured],
        "links": link_rows(records),
        "pictures": _pictures(measured, shown) if measured else [],
        "records": records,
        "corrupt": corrupt,
    }


def _pictures(measured: Sequence[Row], shown: Sequence[Row]) -> list[Picture]:
    """The figures: of private runs, or of `plain` ones if there are no others.

    Args:
        measured: All rows.
        shown: The rows whose stages are shown.
    """
    private = [row for row in measured if row.private]
    same_network = [row for row in shown if row.network == shown[0].network]
    where = f"At each series' longest prompt, network {same_network[0].network}."
    time = Picture(
        "time",
        "Decode time per token (TPOT) on the client's clock, online and offline work together (median of the repeats, "
        "bars from the shortest to the longest), and the online rounds that a round trip is multiplied with.",
        by_length(private or measured, [_SECONDS, _ROUNDS]),
    )
    stage_time = f"The client's time per token, by stage. {where}"
    found = [time, Picture("stage-seconds", stage_time, breakdown(same_network, "seconds"))]
    if points := _on_several_links(private):
        across = "Decode time per token (TPOT) against the measured link, at each series' longest prompt."
        found.insert(1, Picture("links", across, by_link(points, _SECONDS)))
    if batches := batch_rows(private):
        across = (
            "Throughput of all sequences and time per output token against the batch, for each network; at each "
            "series' longest prompt with several batches."
        )
        found.append(Picture("batch", across, by_batch(batches, [_THROUGHPUT, _LATENCY])))
    if private:
        volume = "Bytes per token, online and offline apart, with framing."
        found.insert(1, Picture("bytes", volume, by_length(private, [_ONLINE, _OFFLINE])))
        stage_bytes = f"Bytes per token, by stage, sent by all. {where}"
        found.append(Picture("stage-bytes", stage_bytes, breakdown(same_network, "bytes")))
    return found


def _on_several_links(private: Sequence[Row]) -> list[tuple[Row, Link]]:
    """Each series' rows at the longest prompt that it ran on more than one measured link."""
    found: list[tuple[Row, Link]] = []
    for name in dict.fromkeys(row.series for row in private):
        by_length: dict[int, list[tuple[Row, Link]]] = {}
        for row in private:
            if row.series == name and (link := link_of(row)) is not None:
                by_length.setdefault(row.seq_len, []).append((row, link))
        several = [points for _, points in sorted(by_length.items()) if len(points) > 1]
        found += several[-1] if several else []
    return found


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("orchestrator.report", "."),
        autoescape=select_autoescape(["html.j2"]),  # Markdown escapes through the filter `md`
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "bytes": words.byte_count,
        "seconds": words.duration,
        "digits": words.digits,
        "times": words.times,
        "md": words.markdown,
        "svg": _svg,
    }
    return environment


def _svg(picture: Picture) -> Markup:
    return Markup(as_svg(picture.figure, picture.name))  # noqa: S704 - our own drawing, its text escaped by matplotlib
