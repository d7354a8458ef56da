"""The Prometheus target file."""

import json
import threading
from pathlib import Path

import pytest

from orchestrator.targets import TargetFile


def test_names_every_exporter_with_its_labels(tmp_path: Path) -> None:
    targets = TargetFile(tmp_path / "new" / "targets.json", "quickstart")
    targets.write({"client": ("10.0.0.1", 9101), "server": ("fe80::2", 9102)})
    assert json.loads((tmp_path / "new" / "targets.json").read_text()) == [
        {"targets": ["10.0.0.1:9101"], "labels": {"run": "quickstart"}},
        {"targets": ["[fe80::2]:9102"], "labels": {"run": "quickstart"}},
    ]


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    path = tmp_path / "targets.json"
    targets = TargetFile(path, "run")
    targets.write({"client": ("127.0.0.1", 1)})
    done = threading.Event()

    def rewrite() -> None:
        for port in range(300):
            targets.write({f"role{i}": ("127.0.0.1", port) for i in range(port % 50 + 1)})
        done.set()

    writer = threading.Thread(target=rewrite)
    writer.start()
    while not done.is_set():
        assert json.loads(path.read_text())
    writer.join()
    assert [entry.name for entry in tmp_path.iterdir()] == ["targets.json"]


def test_is_gone_after_the_run_even_if_the_run_failed(tmp_path: Path) -> None:
    path = tmp_path / "targets.json"

    def run() -> None:
        with TargetFile(path, "run") as targets:
            targets.write({"client": ("127.0.0.1", 1)})
            assert path.exists()
            raise OSError("run failed")

    with pytest.raises(OSError, match="run failed"):
        run()
    assert not path.exists()


def test_removing_what_was_never_written_is_no_error(tmp_path: Path) -> None:
    with TargetFile(tmp_path / "targets.json", "run"):
        pass
    assert not list(tmp_path.iterdir())
