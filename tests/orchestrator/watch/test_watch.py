"""The metrics of the driver, compared with the registry, and the data of the live page."""

import logging
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families as parse

from netem import LinkReading
from orchestrator.records.record import Status
from orchestrator.records.timeline import load
from orchestrator.watch.server import DriverCollector
from orchestrator.watch.terminal import SweepProgress
from orchestrator.watch.watch import Watch
from parties.metering.registry import BY_NAME, METRICS
from tests.helpers.samples import cell, failure, record, serving
from tests.helpers.watching import Clock, progress_at

LINKS = [
    LinkReading(
        src=src,
        dst=dst,
        asked={"rate_mbit": 80.0, "delay_ms": 5.0, "jitter_ms": 0.0, "loss_pct": 1.0, "rtt_ms": 10.0},
        measured_before={"rtt_ms": 10.2, "rate_mbit": 80.0},
    )
    for src, dst in (("client", "server"), ("server", "client"))
]
AS_IT_IS = LinkReading(src="client", dst="dealer", measured_before={"rtt_ms": 0.1, "rate_mbit": 8000.0})


class Run:
    """A run of three cells that is watched, on a clock that is set by hand."""

    def __init__(self, folder: Path) -> None:
        self.clock = Clock()
        self.sweep = SweepProgress("quickstart", 3, self.clock)
        self.watch = Watch("quickstart-1", folder, self.sweep, self.clock)

    def begin(self) -> None:
        self.sweep.begin([10.0, 20.0])
        self.watch.begin(cell())

    def work(self, seconds: int, start: int = 0) -> None:
        for t in range(start, start + seconds):
            self.watch.update(progress_at(t))
            self.clock.now += 1

    def served(self) -> dict[str, dict[tuple[str, ...], float]]:
        """Samples by metric, then by the values of its labels except the party."""
        registry = CollectorRegistry()
        registry.register(DriverCollector(self.watch))
        found: dict[str, dict[tuple[str, ...], float]] = {}
        for family in parse(generate_latest(registry).decode()):
            for sample in family.samples:
                name = sample.name
                assert set(sample.labels) == set(BY_NAME[name].labels)
                key = tuple(sample.labels[label] for label in BY_NAME[name].labels)
                found.setdefault(name, {})[key] = sample.value
        return found


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def test_before_the_first_cell_there_is_a_run_without_a_cell(run: Run) -> None:
    served = run.served()
    assert served["mpcbench_cells_left"] == {("driver",): 3}
    assert served["mpcbench_remaining_seconds"] == {("driver",): 0}
    assert "mpcbench_run_info" not in served
    assert "mpcbench_cell_elapsed_seconds" not in served


def test_a_cell_serves_its_parameters_its_links_and_their_use(run: Run) -> None:
    run.begin()
    run.watch.links([*LINKS, AS_IT_IS])
    run.work(4)
    served = run.served()
    ((labels, one),) = served["mpcbench_run_info"].items()
    assert one == 1
    assert dict(zip(BY_NAME["mpcbench_run_info"].labels, labels, strict=True)) | {"parameters": ""} == {
        "party": "driver", "cell": cell().id, "engine": "crypten", "policy": "full", "parameters": "",
        "model": "random:tiny-llama", "seq_len": "128", "new_tokens": str(cell().new_tokens), "network": "none",
        "prefill": "shared", "argmax": "private", "offline": "streamed", "comparison": "dcf",
        "softmax": "tables",
        "spu": "protocol=aby3, field=64, fxp=18, gather=rows", "bounds": "", "draft": "none",
        "seed": "0", "repeat": "0",
    }  # fmt: skip
    pair = ("client", "server")
    assert served["mpcbench_link_asked_bytes_per_second"][pair] == 10e6
    assert served["mpcbench_link_asked_rtt_seconds"][pair] == pytest.approx(0.010)
    assert served["mpcbench_link_asked_loss_ratio"][pair] == pytest.approx(0.01)
    assert served["mpcbench_link_measured_rtt_seconds"][pair] == pytest.approx(0.0102)
    assert served["mpcbench_link_used_ratio"][pair] == pytest.approx(0.1)  # one of ten megabytes per second
    assert ("client", "dealer") not in served["mpcbench_link_asked_rtt_seconds"]
    assert served["mpcbench_link_used_ratio"]["client", "dealer"] == pytest.approx(0.001)
    assert served["mpcbench_cell_elapsed_seconds"] == {("driver",): 4}
    assert served["mpcbench_remaining_seconds"] == {("driver",): 26}


def test_cells_are_counted_by_how_they_ended(run: Run) -> None:
    for ended in (record(), failure(), failure()):
        run.begin()
        run.watch.end(ended, None)
    served = run.served()
    counts = {("driver", "ok"): 1, ("driver", "party_died"): 2}
    assert served["mpcbench_cells_finished_total"] == counts
    assert served["mpcbench_cells_left"] == {("driver",): 0}
    assert "mpcbench_run_info" not in served


def test_the_driver_serves_all_its_metrics_of_the_registry(run: Run) -> None:
    run.begin()
    run.watch.end(record(), None)
    run.begin()
    run.watch.links(LINKS)
    run.work(3)
    promised = {metric.name for metric in METRICS if metric.driver}
    assert promised <= set(run.served())
    assert "mpcbench_resident_bytes" in run.served()


def test_the_page_receives_only_new_data(run: Run) -> None:
    run.begin()
    run.watch.links(LINKS)
    run.work(3)
    first = run.watch.page("", -1, 0)
    assert (first["fresh"], len(first["samples"])) == (True, 3)
    assert first["now"]["title"] == str(cell())
    run.work(2, start=3)
    more = run.watch.page(first["cell"], first["generation"], 3)
    assert (more["fresh"], len(more["samples"])) == (False, 2)
    assert [sample["t"] for sample in first["samples"] + more["samples"]] == [0, 1, 2, 3, 4]


def test_the_page_receives_the_numbers_of_serving_of_this_cell_and_of_those_that_ended(run: Run) -> None:
    run.begin()
    assert run.watch.page("", -1, 0)["times"] is None
    run.work(4)
    times = run.watch.page("", -1, 0)["times"]
    assert (times["ttft_seconds"], times["tokens_per_second"], times["acceptance"]) == (1.0, 1.0, None)
    assert times["itl_p99_seconds"] == 1.0
    run.watch.end(record(serving=serving([2.0, 1.0])), None)
    run.watch.end(failure(), None)
    ended = [cell["times"] for cell in run.watch.page("", -1, 0)["finished"]]
    assert (ended[0]["ttft_seconds"], ended[0]["tpot_seconds"], ended[1]) == (2.0, 1.5, None)


def test_until_a_cell_has_samples_the_page_keeps_the_one_before(run: Run) -> None:
    run.begin()
    run.watch.links(LINKS)
    run.work(3)
    known = run.watch.page("", -1, 0)
    run.watch.end(record(), None)
    run.sweep.begin([20.0])
    second = cell(seq_lens=[256])
    run.watch.begin(second)
    waiting = run.watch.page(known["cell"], known["generation"], 3)
    assert (waiting["cell"], waiting["fresh"], waiting["samples"]) == (cell().id, False, [])
    assert (waiting["now"]["cell"], len(waiting["links"])) == (second.id, 2)
    assert run.watch.page("", -1, 0)["samples"] == known["samples"]  # a page that is opened now
    run.work(1)
    begun = run.watch.page(known["cell"], known["generation"], 3)
    assert (begun["cell"], begun["fresh"], len(begun["samples"]), begun["links"]) == (second.id, True, 1, [])


def test_a_failed_cell_is_reported_with_its_cause_and_its_time_series_is_kept(run: Run, tmp_path: Path) -> None:
    run.begin()
    run.work(3)
    run.watch.end(failure(status=Status.TIMEOUT), "the client's secret")
    page = run.watch.page("", -1, 0)
    assert [(row["status"], row["error"]) for row in page["finished"]] == [("timeout", "server is gone; look at dmesg")]
    assert "secret" not in str(page)
    assert len(load(tmp_path, cell().id)) == 3


def test_a_full_disk_loses_the_time_series_and_not_the_run(
    run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "timeline").write_text("a file where the folder should be")
    run.begin()
    run.work(2)
    with caplog.at_level(logging.WARNING):
        run.watch.end(record(), None)
    assert f"the time series of cell {cell().id} is not kept" in caplog.text
    assert run.watch.page("", -1, 0)["statuses"] == {"ok": 1}
