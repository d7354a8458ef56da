import html.parser
import re
from pathlib import Path

import pytest

from netem import LinkReading
from orchestrator.experiment.cells import expand
from orchestrator.records.record import Record, Status
from orchestrator.records.store import RecordStore, StoreError
from orchestrator.report import render
from orchestrator.report.figures import Panel, as_png, as_svg, by_length
from orchestrator.report.rows import against_full, rows, stage_rows
from orchestrator.report.words import byte_count, digits, duration, markdown, times
from tests.helpers import samples


def report(folder: Path, *records: Record) -> tuple[str, str]:
    with RecordStore(folder) as store:
        for record in records:
            store.append(record)
    page, text = render(folder)
    return page.read_text(), text.read_text()


class Balance(html.parser.HTMLParser):
    """Finds tags that are not closed, ids given twice, and anything the page would fetch."""

    VOID = frozenset({"meta", "br", "path", "use", "rect", "line", "image"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.fetched: list[str] = []
        self.tags: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.add(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        if values.get("id"):
            self.ids.append(str(values["id"]))
        self.fetched += [str(values[key]) for key in ("src", "href") if key in values]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


SWEEP = [samples.record(cell) for cell in expand(samples.experiment(repeats=2))]


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """A folder, with the page and the Markdown that report a sweep of which one cell failed."""
    folder = tmp_path_factory.mktemp("swept")
    return folder, *report(folder, *SWEEP[:-1], samples.failure(SWEEP[-1].cell, message="a | b\nc"))


def test_the_first_screen_shows_the_run_its_hosts_and_its_trust_model(swept: tuple[Path, str, str]) -> None:
    _, page, text = swept
    for content in (page, text):
        screen = content[: content.index("Against the full cache")]
        for expected in ("synthetic", "11 ok", "1 party_died", "128, 256, 512 tokens", "a processor, 2 cores"):
            assert expected in re.sub(r"\\", "", screen)
        assert "two parties and a dealer, semi-honest" in screen
        assert "the bench ran the prompt in the clear" in screen
        assert "nothing beyond the public sequence length" in screen


def test_the_page_is_self_contained_valid_html(swept: tuple[Path, str, str]) -> None:
    _, page, _ = swept
    found = Balance(page)
    assert found.open == []
    assert found.fetched == []
    assert len(found.ids) == len(set(found.ids))
    assert "script" not in found.tags
    assert page.count("<svg") == 4
    assert not re.search(r"url\((?!#)", page)
    assert "@import" not in page


def test_the_markdown_names_figures_that_exist(swept: tuple[Path, str, str]) -> None:
    folder, _, text = swept
    figures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text)
    assert len(figures) == 4
    for name in figures:
        assert (folder / name).read_bytes().startswith(b"\x89PNG")


def test_every_table_of_the_markdown_has_as_many_cells_in_each_row(swept: tuple[Path, str, str]) -> None:
    _, _, text = swept
    for table in re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE):
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(widths) == 1


def test_numbers_are_per_token_and_name_their_phase(tmp_path: Path) -> None:
    record = samples.record(samples.cell(seq_lens=[128]), seconds=10.0)
    page, _ = report(tmp_path, record)
    (row,) = rows([record])
    assert row.seconds == 10.0
    assert row.online_seconds == pytest.approx(8.0)
    assert row.client_bytes == record.totals.online.sent_bytes["client"] / 2  # of two tokens
    assert row.online_bytes == sum(record.totals.online.sent_bytes.values()) / 2
    headers = [" ".join(re.sub("<[^>]+>", " ", head).split()) for head in re.findall("<th.*?</th>", page)]
    for header in headers:
        if "bytes" in header or "time" in header or "rounds" in header:
            known = "online" in header or "offline" in header or header in ("bytes", "rounds")
            assert known, header  # stage tables have a column of their own for the phase


def test_repeats_are_one_row_with_their_median() -> None:
    cells = expand(samples.experiment(policies=["full"], seq_lens=[128], repeats=3))
    (row,) = rows([samples.record(cell, seconds=s) for cell, s in zip(cells, (5.0, 9.0, 6.0), strict=True)])
    assert (row.seconds, row.low, row.high) == (6.0, 5.0, 9.0)
    assert len(row.records) == 3


def test_a_compressed_cache_is_compared_with_the_full_one_of_the_same_setting() -> None:
    cells = expand(samples.experiment(engines=["plain", "crypten"], networks=["none", "wan"], seq_lens=[128, 256]))
    seconds = {"full": 10.0, "mpcache": 5.0}
    ratios = against_full(rows(samples.record(cell, seconds=seconds[cell.policy.name]) for cell in cells))
    assert {(ratio.row.network, ratio.row.seq_len) for ratio in ratios} == {
        ("none", 128), ("none", 256), ("wan", 128), ("wan", 256),
    }  # fmt: skip
    assert all(ratio.seconds == 0.5 and ratio.row.private for ratio in ratios)


def test_without_a_full_cache_there_is_no_comparison(tmp_path: Path) -> None:
    page, _ = report(tmp_path, samples.record(samples.cell(policies=["mpcache"])))
    assert "Against the full cache" not in page


def test_stages_come_in_the_order_a_token_meets_them_and_without_the_bench() -> None:
    (row,) = rows([samples.record(samples.cell(policies=["mpcache"]), seconds=10.0)])
    names = [stage.stage for stage in stage_rows(row)]
    assert names[0] == "embed"
    assert names.index("topk") < names.index("softmax") < names.index("lm_head")
    assert names[-1] == "offline.triples"
    total = sum(stage.compute_seconds + stage.blocked_seconds for stage in stage_rows(row))
    assert total == pytest.approx(10.0, rel=0.01)


def test_set_up_per_session_is_charged_to_no_token() -> None:
    record = samples.record(seconds=10.0)
    weights = record.stages[0].model_copy(update={"stage": "setup.weights", "phase": "setup", "seconds": 99.0})
    (row,) = rows([samples.record(seconds=10.0, stages=(*record.stages, weights))])
    assert "setup.weights" not in [stage.stage for stage in stage_rows(row)]


@pytest.mark.slow
def test_times_of_single_runs_are_marked_unstable(tmp_path: Path) -> None:
    page, text = report(tmp_path / "once", SWEEP[0])
    assert "a single run vary" in page
    assert "a single run vary" in text
    assert "a single run vary" not in report(tmp_path / "twice", *SWEEP[:2])[0]


def test_an_incorrect_cell_is_shown_as_incorrect(tmp_path: Path) -> None:
    page, text = report(tmp_path, samples.record(status=Status.INCORRECT))
    assert '<tr class="incorrect">' in page
    assert "no, incorrect" in page
    assert "no, incorrect" in text
    assert "*incorrect*" in text


def test_failures_alone_make_a_report(tmp_path: Path) -> None:
    page, text = report(tmp_path, samples.failure(), samples.failure(samples.cell(seed=1), Status.TIMEOUT))
    for expected in ("party_died", "timeout", "server is gone; look at dmesg", "softmax"):
        assert expected in page
        assert expected in re.sub(r"\\", "", text)
    assert "<svg" not in page
    assert "One decoded token" not in page


def test_one_plain_record_makes_a_report(tmp_path: Path) -> None:
    stages = [
        stage.model_copy(update={"party": "referee"}) for stage in samples.record().stages if stage.party == "client"
    ]
    cell = samples.cell(engines=["plain"], seq_lens=[128])
    page, _ = report(tmp_path, samples.record(cell, check=None, stages=stages))
    assert page.count("<svg") == 2  # no bytes to draw


@pytest.mark.slow
def test_hundreds_of_records_make_a_report(tmp_path: Path) -> None:
    policies = ["full", *({"name": "mpcache", "select": i / 20} for i in range(12))]
    cells = expand(
        samples.experiment(policies=policies, seq_lens=[64, 128, 256, 512], networks=["none", "lan", "wan"], repeats=2)
    )
    records = [samples.record(cell) for cell in cells]
    assert len(records) > 300
    page, _ = report(tmp_path, *records)
    assert f"{len(records)} ok" in page
    assert len(page) < 5e6


def test_warnings_that_differ_only_in_their_numbers_are_shown_once(tmp_path: Path) -> None:
    cells = expand(samples.experiment(repeats=3))[:3]
    texts = ("10.77.0.10 sent 1,024 bytes", "10.77.0.11 sent 7 bytes", "10.77.0.11 sent nothing")
    pairs = zip(cells, texts, strict=True)
    page, text = report(tmp_path, *(samples.record(cell, warnings=(warning,)) for cell, warning in pairs))
    assert "10.77.0.10 sent 1,024 bytes (2 cells; the numbers are the first one's)" in text
    assert text.count("| Warning |") == 2
    assert page.count("10.77.0.11 sent") == 1


@pytest.mark.parametrize(("least", "scale"), [(1.0, "log"), (50.0, "linear"), (0.0, "linear")])
def test_small_amounts_next_to_large_ones_are_legible(least: float, scale: str) -> None:
    shown = rows([samples.record(cell) for cell in expand(samples.experiment())])
    (axes,) = by_length(shown, [Panel("Seconds", "s", lambda row: least if row is shown[0] else 100.0)]).axes
    assert axes.get_yscale() == scale
    assert ("logarithmic" in axes.get_ylabel()) == (scale == "log")
    assert scale == "log" or axes.get_ylim()[0] == 0


def test_everything_is_escaped(tmp_path: Path) -> None:
    evil = "<script>alert('x')</script> $x$ | `y` {{ 7*7 }} \x1b[31m"
    network = {"name": "<b>$net$ & {{ 7*7 }}", "delay_ms": 1}
    cell = samples.cell(networks=[network])
    ok = samples.record(cell, warnings=(evil,), trust_model=evil, prefill=evil, versions={"cpu": evil})
    failed = samples.failure(samples.cell(networks=[network], seed=1), message=evil, role=evil, stage=evil)
    page, text = report(tmp_path, ok, failed)
    assert "<script>" not in page
    assert "<b>$net$" not in page
    assert "alert(&#39;x&#39;)" in page
    assert "49" not in re.findall(r"alert.{60}", page)[0]
    assert "<script>" not in text
    assert "<b>" not in text
    assert Balance(page).open == []


def test_links_are_shown_as_requested_and_measured(tmp_path: Path) -> None:
    asked = {"delay_ms": 20.0, "rate_mbit": None, "loss_pct": 0.0, "rtt_ms": 40.0}
    readings = [{"rtt_ms": rtt, "rate_mbit": 381.4, "congestion_control": "bbr"} for rtt in (40.31, 41.02, 40.77)]
    links = [LinkReading(src="client", dst="server", asked=asked, measured_before=reading) for reading in readings]
    cells = expand(samples.experiment(repeats=3))[:3]
    pairs = zip(cells, links, strict=True)
    page, text = report(tmp_path, *(samples.record(cell, links=(link,)) for cell, link in pairs))
    (row,) = [line for line in text.replace("\\", "").splitlines() if line.startswith("| none | client | server |")]
    expected = ["3", "RTT 40 ms, delay 20 ms", "RTT 40.8 (40.3 to 41) ms, rate 381 Mbit/s", "n/a"]
    assert [part.strip() for part in row.strip("|").split("|")][3:] == expected
    assert all(f">{part}<" in page for part in expected)


def test_a_link_that_could_not_be_measured_is_shown_as_such(tmp_path: Path) -> None:
    link, warning = LinkReading(src="client", dst="server"), "the link client>server could not be measured before"
    page, text = report(tmp_path, samples.record(links=(link,), warnings=(warning,)))
    assert "could not be measured before" in page
    (row,) = [line for line in text.replace("\\", "").splitlines() if line.startswith("| none | client | server |")]
    assert [part.strip() for part in row.strip("|").split("|")][5:] == ["n/a", "n/a"]


@pytest.mark.slow
def test_corrupt_records_are_named_in_the_report(tmp_path: Path) -> None:
    report(tmp_path, *SWEEP[:2])
    with (tmp_path / "records.jsonl").open("a") as file:
        file.write('{"id": "to')
    page, _ = render(tmp_path)
    assert "line 3 is corrupt" in page.read_text()


@pytest.mark.slow
def test_rendering_again_gives_the_same_bytes(tmp_path: Path) -> None:
    assert report(tmp_path, *SWEEP[:4]) == tuple(path.read_text() for path in render(tmp_path))


@pytest.mark.parametrize("name", ["missing", "empty"])
def test_a_folder_without_records_is_refused_with_the_fix(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(StoreError, match="holds no records; run an experiment"):
        render(tmp_path / name)


def test_figures_survive_names_that_look_like_mathematics() -> None:
    from orchestrator.report import _SECONDS

    figure = by_length(rows([samples.record(samples.cell(networks=[{"name": r"$\frac{", "delay_ms": 1}]))]), [_SECONDS])
    assert as_png(figure).startswith(b"\x89PNG")
    assert as_svg(figure, "x").startswith("<svg")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (1.3e9, "1.3 GB"),
        (2_345_678, "2.35 MB"),
        (5e12, "5 TB"),
        (None, "n/a"),
    ],
)
def test_bytes_are_decimal(value: float | None, expected: str) -> None:
    assert byte_count(value) == expected


def test_numbers_have_three_digits_and_no_exponent() -> None:
    assert [digits(v) for v in (0, 0.0000123, 0.05, 12.345, 5400.4, None)] == [
        "0",
        "0.0000123",
        "0.05",
        "12.3",
        "5,400",
        "n/a",
    ]
    assert [duration(v) for v in (0.0, 0.0421, 16.24, None)] == ["0 s", "42.1 ms", "16.2 s", "n/a"]
    assert [times(v) for v in (0.876, None)] == ["0.88x", "n/a"]


def test_markdown_text_is_escaped() -> None:
    assert markdown("a|b\n<i>*c*</i>") == r"a\|b &lt;i&gt;\*c\*&lt;/i&gt;"


def test_the_bounds_of_a_model_are_named(tmp_path: Path) -> None:
    cell = samples.cell(engines=["fss"], bounds={"activation": 128, "down": 1 << 16})
    _, text = report(tmp_path / "wide", samples.record(cell))
    assert "activation up to 128, down up to 65,536" in text
    assert "Bounds" not in report(tmp_path / "own", samples.record(samples.cell(engines=["fss"])))[1]
