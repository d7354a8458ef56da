"""The command `doctor` on this machine and on a cluster of two nodes."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from typer.testing import CliRunner

from orchestrator.cli.main import app
from tests.helpers.emulated_cluster import emulated_cluster
from tests.helpers.needs import needs

pytestmark = [
    pytest.mark.ray,
    # Ray leaves its own sockets and log files to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
FILE = """
name: tiny
model: random:tiny-llama
prompt: {random_tokens: true}
engines: [fss]
policies: [full]
seq_lens: [24]
new_tokens: 2
"""


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[None]:
    """A head that claims a GPU, and a node that alone has a slot for the server."""
    head = {"num_cpus": 2, "num_gpus": 1}
    with emulated_cluster(head, {"num_cpus": 1, "num_gpus": 1, "resources": {"server": 1}}):
        yield


def written(folder: Path, **more: Any) -> Path:
    path = folder / "tiny.yaml"
    path.write_text(FILE + "".join(f"{key}: {json.dumps(value)}\n" for key, value in more.items()))
    return path


def examined(*arguments: object, code: int) -> list[dict[str, str]]:
    result = CliRunner().invoke(app, ["doctor", *map(str, arguments), "--json"])
    assert result.exit_code == code, result.output
    found: list[dict[str, str]] = json.loads(result.stdout)
    return found


def rows(found: list[dict[str, str]], check: str) -> list[dict[str, str]]:
    return [row for row in found if row["check"] == check]


def test_two_equal_nodes_are_fine_in_every_ordered_pair(two_nodes: None, tmp_path: Path) -> None:
    found = examined(written(tmp_path, networks=["none"]), "--out", tmp_path, code=0)
    assert {row["verdict"] for row in found} == {"ok"}
    counts = {check: len(rows(found, check)) for check in ("versions", "clock", "port", "reach", "memory", "disk")}
    assert counts == {"versions": 2, "clock": 2, "port": 2, "reach": 2, "memory": 2, "disk": 1}
    assert len({row["where"] for row in rows(found, "reach")}) == 2


def test_a_taken_port_is_found_on_the_node_of_its_party(two_nodes: None, tmp_path: Path) -> None:
    with socket.create_server(("0.0.0.0", 0)) as taken:  # noqa: S104 - whatever address the node has
        port = taken.getsockname()[1]
        found = examined(written(tmp_path, data_ports={"server": port}), "--out", tmp_path, code=1)
    (broken,) = (row for row in found if row["verdict"] == "fix")
    assert broken["check"] == "port"
    assert f"server port {port}" in broken["where"]
    again = examined(written(tmp_path, data_ports={"server": port}), "--out", tmp_path, code=0)
    assert len(rows(again, "reach")) == 3


def test_unsupported_links_are_reported_with_reason_and_fix(two_nodes: None, tmp_path: Path) -> None:
    found = examined(written(tmp_path, networks=["none", "wan"]), "--out", tmp_path, code=1)
    (broken,) = (row for row in found if row["verdict"] == "fix")
    assert (broken["check"], broken["where"]) == ("links", "wan")
    assert "tc: " in broken["found"]
    assert "relay: " in broken["found"]
    assert "--lab" in broken["fix"]


@needs("no-gpu")
def test_a_gpu_that_ray_offers_and_torch_cannot_use_is_found(two_nodes: None, tmp_path: Path) -> None:
    found = examined(written(tmp_path, gpu=True), "--out", tmp_path, code=1)
    assert {row["verdict"] for row in rows(found, "gpu")} == {"fix"}
    assert len(rows(found, "gpu")) == 4
    assert len(rows(found, "gpus")) == 2
    assert "gpu: false" in rows(found, "gpu")[0]["fix"]


def test_the_default_output_is_a_table_and_a_list_of_fixes(two_nodes: None, tmp_path: Path) -> None:
    with socket.create_server(("0.0.0.0", 0)) as taken:  # noqa: S104 - whatever address the node has
        file = written(tmp_path, data_ports={"client": taken.getsockname()[1]})
        result = CliRunner().invoke(app, ["doctor", str(file), "--out", str(tmp_path)])
    assert result.exit_code == 1
    assert "round trip" in result.output
    assert "fix port of" in result.output
    assert "change data_ports.client" in result.output
    assert "1 of " in result.output


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--address", "nowhere"], "host:port"),
        (["--address", "127.0.0.1:1"], "no Ray cluster at 127.0.0.1:1"),
        (["missing.yaml"], "missing.yaml"),
        (["--out", __file__], "cannot read"),
    ],
)
def test_bad_input_is_refused(arguments: list[str], expected: str) -> None:
    ray.shutdown()
    result = CliRunner().invoke(app, ["doctor", *arguments])
    assert result.exit_code == 2
    assert expected in result.output


def test_this_machine_alone_needs_no_cluster_and_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ray.shutdown()
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    found = examined("--out", tmp_path, code=0)
    assert {row["check"] for row in found} == {
        "versions", "clock", "gpus", "slots", "port", "reach", "links", "memory", "disk",
    }  # fmt: skip
    assert len(rows(found, "versions")) == 1
    assert not ray.is_initialized()
