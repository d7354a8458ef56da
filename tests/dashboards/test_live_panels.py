"""Every panel queries a live Prometheus about a real run, with both engines, and gets data."""

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from dashboards.boards import BOARDS, MAY_BE_EMPTY, board
from orchestrator.watch.prometheus import Prometheus, stop
from orchestrator.watch.targets import FOLDER_VARIABLE
from tests.helpers.needs import needs
from tests.helpers.paths import ROOT
from tests.helpers.waiting import PATIENCE_S

pytestmark = [
    pytest.mark.ray,
    needs("prometheus"),
]

RENDER = ROOT / "dashboards/render"

EXPERIMENT = {
    "name": "watched",
    "model": "random:llama?layers=1&hidden=16&heads=2&kv_heads=1&intermediate=32&vocab=64",
    "prompt": {"random_tokens": True},
    "engines": ["crypten", "fss"],
    "policies": [{"name": "mpcache", "static_keep": 0.5, "select": 0.5}],
    "seq_lens": [32],
    "networks": [{"name": "slow", "rate_mbit": 100, "delay_ms": 10}],  # within tolerance on busy machines, too
    "new_tokens": 4,
}


class Watched:
    """A run that is over, and the Prometheus that watched it."""

    def __init__(self, url: str, begin: float, end: float) -> None:
        self.url, self.begin, self.end = url, begin, end
        (self.run,) = self._get("/api/v1/label/run/values", {})

    def ask(self, expr: str) -> list[dict[str, Any]]:
        """The series of a panel's query over the run, all engines, policies, networks and parties chosen."""
        window = {"__rate_interval": "4s", "__range": f"{int(self.end - self.begin)}s", "__interval": "1s"}
        variables = {"run": self.run, **dict.fromkeys(("engine", "policy", "network", "party"), ".*"), **window}
        query = re.sub(r"\$(\w+)", lambda name: variables[name[1]], expr)
        found: list[dict[str, Any]] = self._get(
            "/api/v1/query_range", {"query": query, "start": self.begin, "end": self.end, "step": 1}
        )["result"]
        return found

    def _get(self, path: str, parameters: dict[str, Any]) -> Any:
        address = f"{self.url}{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(address, timeout=PATIENCE_S) as answer:  # noqa: S310 - our own, on loopback
            return json.load(answer)["data"]


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("watched")
    (folder / "experiment.yaml").write_text(yaml.safe_dump(EXPERIMENT))
    with pytest.MonkeyPatch.context() as patch, socket.socket() as free:
        patch.setenv(FOLDER_VARIABLE, str(folder / "targets"))
        free.bind(("127.0.0.1", 0))
        server = Prometheus(folder / "prometheus", free.getsockname()[1])
        free.close()
        server.write("", 60)
        process = server.start(detach=False)
        try:
            begin = time.time()
            run = [sys.executable, "-m", "orchestrator.cli.main", "run", "experiment.yaml", "--out", "out"]
            done = subprocess.run(
                run, cwd=folder, capture_output=True, text=True, check=False, timeout=PATIENCE_S, env=os.environ
            )
            assert done.returncode == 0, done.stdout + done.stderr
            yield Watched(server.url, begin, time.time())
        finally:
            stop(process)


PANELS = [(name, panel) for name in BOARDS for panel in board(name)["panels"] if panel["type"] != "row"]


@pytest.mark.parametrize(("name", "panel"), PANELS, ids=[f"{name}-{panel['title']}" for name, panel in PANELS])
def test_a_panel_has_something_to_show(watched: Watched, name: str, panel: dict[str, Any]) -> None:
    answers = [watched.ask(target["expr"]) for target in panel["targets"]]
    numbers = [float(value) for answer in answers for one in answer for _, value in one["values"]]
    if panel["title"] not in MAY_BE_EMPTY:
        assert all(answers), f"{name}, {panel['title']}: {[target['expr'] for target in panel['targets']]}"
        assert any(number == number for number in numbers)  # not only NaN


def test_shares_are_between_0_and_1(watched: Watched) -> None:
    for name, panel in PANELS:
        if (
            panel["fieldConfig"]["defaults"]["unit"] == "percentunit"
            and panel["title"] != "Measured rate over asked rate"
        ):
            for target in panel["targets"]:
                values = [float(value) for one in watched.ask(target["expr"]) for _, value in one["values"]]
                # a rate over few scrapes is off by as much as they are late
                assert all(-0.01 <= value <= 2 for value in values if value == value), f"{name}, {panel['title']}"


def test_a_board_narrowed_to_another_engine_shows_nothing_of_this_one(watched: Watched) -> None:
    (stages,) = [panel for name, panel in PANELS if panel["title"] == "Time by stage"]
    expr = stages["targets"][0]["expr"]
    assert watched.ask(expr.replace("$engine", "crypten"))
    assert watched.ask(expr.replace("$engine", "plain")) == []


@needs("drawing", "chromium")
def test_grafanas_components_draw_every_panel_with_its_units_and_colours(watched: Watched, tmp_path: Path) -> None:
    times = ["--from", str(int(watched.begin * 1000)), "--to", str(int(watched.end * 1000))]
    where = ["--prometheus", watched.url, "--run", watched.run, "--out", str(tmp_path)]
    subprocess.run(["npm", "run", "build"], cwd=RENDER, check=True, capture_output=True)
    done = subprocess.run(["node", "draw.mjs", *where, *times], cwd=RENDER, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    drawn = json.loads((tmp_path / "boards.json").read_text(encoding="utf-8"))
    kinds = {panel["type"] for one in drawn.values() for panel in one["panels"] if panel["queried"]}
    assert kinds == {panel["type"] for _, panel in PANELS}
    assert len(list(tmp_path.glob("board-*.png"))) == 2 * len(BOARDS)
