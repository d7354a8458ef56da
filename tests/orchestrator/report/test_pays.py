"""When a policy pays, in the report: as a table and a figure, where the run wrote it down."""

from pathlib import Path

import numpy as np

from orchestrator.records.pays import Curve, Point, save_curves
from orchestrator.records.store import RecordStore
from orchestrator.report import render
from orchestrator.report.pays import draw_pays
from tests.helpers import samples


def curve(network: str, series: str = "fss, mpcache") -> Curve:
    slower, faster = (
        Point(seq_len=n, seconds=seconds, full_seconds=10.0, measured=n == 128) for n, seconds in ((128, 20), (512, 5))
    )
    return Curve(series=series, network=network, points=(slower, faster))


def test_the_report_of_a_run_with_curves_says_from_which_length_a_policy_pays(tmp_path: Path) -> None:
    with RecordStore(tmp_path) as store:
        store.append(samples.failure())
    assert "When a policy pays" not in render(tmp_path)[1].read_text()
    save_curves(tmp_path, [curve("lan")])
    page, text = (path.read_text() for path in render(tmp_path))
    row = "| fss, mpcache | lan | from about 260 tokens | measured at 128; predicted beyond |"
    assert row in text
    assert (tmp_path / "figures" / "pays.png").exists()
    assert "<strong>from about 260 tokens</strong>" in page
    assert page.count("<svg") == 1


def test_each_network_has_a_panel_and_predicted_points_are_hollow() -> None:
    figure = draw_pays([curve(name) for name in ("none", "lan", "wan", "far")])
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title(loc="left") for axes in shown] == ["none", "lan", "wan", "far"]
    markers = [line for line in shown[0].lines if line.get_marker() == "o"]
    fills = {str(line.get_markerfacecolor()): np.asarray(line.get_xdata()).tolist() for line in markers}
    assert fills["white"] == [512]
    assert [128] in fills.values()
