"""The Prometheus target files."""

import json
import logging
import os
import socket
import threading
from pathlib import Path

import pytest

from netem.state import state_dir
from orchestrator.watch.targets import TargetFile, closed_to_others, forget_ended, targets_dir

DRIVER = ("127.0.0.1", 9100)


def read(path: Path) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(path.read_text())
    return found


def test_the_file_names_every_exporter_with_its_labels(tmp_path: Path) -> None:
    targets = TargetFile([tmp_path / "new" / "targets.json"], "quickstart", DRIVER)
    targets.write({"client": ("10.0.0.1", 9101), "server": ("fe80::2", 9102)})
    assert read(tmp_path / "new" / "targets.json") == [
        {"targets": ["10.0.0.1:9101"], "labels": {"run": "quickstart", "party": "client"}},
        {"targets": ["[fe80::2]:9102"], "labels": {"run": "quickstart", "party": "server"}},
        {"targets": ["127.0.0.1:9100"], "labels": {"run": "quickstart", "party": "driver"}},
    ]


def test_a_driver_that_alone_is_reachable_represents_all_parties(tmp_path: Path) -> None:
    targets = TargetFile([tmp_path / "targets.json"], "lab", DRIVER, relayed=True)
    targets.write({"client": ("10.77.0.10", 9101)})
    client, driver = read(tmp_path / "targets.json")
    labels = {"run": "lab", "party": "client", "__metrics_path__": "/client/metrics"}
    assert client == {"targets": ["127.0.0.1:9100"], "labels": labels}
    assert driver == {"targets": ["127.0.0.1:9100"], "labels": {"run": "lab", "party": "driver"}}


def test_when_the_parties_go_only_the_driver_is_left(tmp_path: Path) -> None:
    path = tmp_path / "targets.json"
    with TargetFile([path], "run", DRIVER) as targets:
        assert [group["labels"] for group in read(path)] == [{"run": "run", "party": "driver"}]
        targets.write({"client": ("127.0.0.1", 1)})
        assert len(read(path)) == 2
        targets.remove()
        assert len(read(path)) == 1
    assert not path.exists()


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    path = tmp_path / "targets.json"
    targets = TargetFile([path], "run")
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


def test_the_file_is_removed_after_the_run_even_if_the_run_failed(tmp_path: Path) -> None:
    path = tmp_path / "targets.json"

    def run() -> None:
        with TargetFile([path], "run") as targets:
            targets.write({"client": ("127.0.0.1", 1)})
            assert path.exists()
            raise OSError("run failed")

    with pytest.raises(OSError, match="run failed"):
        run()
    assert not path.exists()


def test_removing_a_file_that_was_never_written_is_not_an_error(tmp_path: Path) -> None:
    with TargetFile([tmp_path / "targets.json"], "run"):
        pass
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_written_is_warned_of_once_and_the_run_continues(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    good, bad = tmp_path / "targets.json", tmp_path / "file" / "targets.json"
    with caplog.at_level(logging.WARNING), TargetFile([bad, good], "run", DRIVER) as targets:
        targets.write({"client": ("127.0.0.1", 1)})
        assert len(read(good)) == 2
    assert [str(bad) in message for message in caplog.messages] == [True]
    assert not good.exists()


def test_only_runs_whose_driver_was_killed_are_removed(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as alive, socket.create_server(("127.0.0.1", 0)) as killed:
        for name, listener in (("alive", alive), ("killed", killed)):
            TargetFile([tmp_path / f"{name}.json"], name, listener.getsockname()).write({})
        (tmp_path / "other.json").write_text('[{"targets": ["127.0.0.1:1"], "labels": {}}]')
        (tmp_path / "partial.json").write_text("[{")
        killed.close()
        assert forget_ended(tmp_path) == ["killed"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alive.json", "other.json", "partial.json"]


def test_the_folder_of_all_runs_can_be_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MPCACHE_BENCH_TARGETS", raising=False)
    monkeypatch.setenv("MPCACHE_BENCH_STATE", str(tmp_path / "state"))
    assert targets_dir() == tmp_path / "state" / "targets"
    assert closed_to_others(targets_dir()) in (None, *tmp_path.parents, tmp_path)  # nothing of ours is closed
    monkeypatch.setenv("MPCACHE_BENCH_TARGETS", str(tmp_path / "chosen"))
    assert targets_dir() == tmp_path / "chosen"


def test_a_prometheus_of_another_user_can_read_what_root_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MPCACHE_BENCH_TARGETS", raising=False)
    monkeypatch.setenv("MPCACHE_BENCH_STATE", str(tmp_path / "state"))
    before = os.umask(0o077)
    try:
        leases = state_dir("leases")  # an earlier run's, which is private
        path = targets_dir() / "run.json"
        with TargetFile([path], "run", DRIVER):
            assert path.stat().st_mode & 0o777 == 0o644
            assert path.parent.stat().st_mode & 0o777 == 0o755
            assert path.parent.parent.stat().st_mode & 0o777 == 0o711
            assert leases.stat().st_mode & 0o077 == 0
    finally:
        os.umask(before)


def test_permissions_that_close_a_file_to_others_are_found(tmp_path: Path) -> None:
    file = tmp_path / "a" / "rules.yml"
    file.parent.mkdir()
    file.touch()
    for file_mode, folder_mode, closed in ((0o640, 0o755, [file]), (0o644, 0o700, [file.parent])):
        file.chmod(file_mode)
        file.parent.chmod(folder_mode)
        assert closed_to_others(file) in closed
    file.parent.chmod(0o711)
    assert closed_to_others(file) in (None, tmp_path, *tmp_path.parents)  # pytest's own folders may be closed
    assert closed_to_others(file.parent) == file.parent  # its files can be read, but not listed
