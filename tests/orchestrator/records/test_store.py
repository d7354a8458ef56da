import errno
import multiprocessing
import os
import resource
import signal
import tempfile
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.experiment.cells import expand
from orchestrator.records.record import Record, Status
from orchestrator.records.store import RecordStore, StoreError
from tests.helpers import samples

CELLS = expand(samples.experiment())
RECORDS = [samples.record(cell) for cell in CELLS]
TIMES = 20


def write(folder: Path, count: int = 3) -> None:
    with RecordStore(folder) as store:
        for record in RECORDS[:count]:
            store.append(record)


def test_records_are_read_in_order(tmp_path: Path) -> None:
    write(tmp_path / "new" / "run")
    assert RecordStore(tmp_path / "new" / "run").read() == tuple(RECORDS[:3])


def test_the_latest_record_of_a_cell_counts(tmp_path: Path) -> None:
    with RecordStore(tmp_path) as store:
        store.append(samples.failure(CELLS[0]))
        store.append(RECORDS[1])
        store.append(RECORDS[0])
        latest = store.latest()
    assert [record.status for record in latest.values()] == [Status.OK, Status.OK]
    assert list(latest) == [CELLS[0].id, CELLS[1].id]
    assert len(store.read()) == 3


def test_a_record_is_read_where_its_prompt_is_not(tmp_path: Path) -> None:
    prompt = tmp_path / "prompt.txt"
    prompt.write_text("the client's prompt")
    with RecordStore(tmp_path / "run") as store:
        store.append(samples.record(samples.cell(prompt={"text_file": str(prompt)})))
    prompt.unlink()
    with RecordStore(tmp_path / "run") as store:
        assert [record.status for record in store.read()] == [Status.OK]
        assert store.warnings == []


def test_an_empty_or_missing_folder_has_no_records(tmp_path: Path) -> None:
    assert RecordStore(tmp_path / "missing").latest() == {}
    assert not (tmp_path / "missing").exists()


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_line_truncated_anywhere_loses_nothing_else_and_is_kept(tmp_path: Path, data: st.DataObject) -> None:
    folder = Path(tempfile.mkdtemp(dir=tmp_path))
    write(folder)
    path = folder / "records.jsonl"
    whole = path.read_bytes()
    last = whole.rstrip(b"\n").rfind(b"\n") + 1
    cut = data.draw(st.integers(last + 1, len(whole) - 1))
    path.write_bytes(whole[:cut])

    survivors = RecordStore(folder).read()  # a reader changes nothing
    assert path.read_bytes() == whole[:cut]
    with RecordStore(folder) as store:
        store.append(RECORDS[3])
        found = store.read()
    if cut == len(whole) - 1:  # only the newline is missing: the record is whole
        assert found == (*RECORDS[:3], RECORDS[3])
        assert not (folder / "records.torn").exists()
    else:
        assert survivors == tuple(RECORDS[:2])
        assert found == (*RECORDS[:2], RECORDS[3])
        assert (folder / "records.torn").read_bytes() == whole[last:cut] + b"\n"
        assert "records.torn" in store.warnings[0]


def test_a_record_that_lacks_only_its_line_end_is_whole(tmp_path: Path) -> None:
    write(tmp_path)
    path = tmp_path / "records.jsonl"
    path.write_bytes(path.read_bytes()[:-1])
    with RecordStore(tmp_path) as store:
        store.append(RECORDS[3])
        assert store.read() == tuple(RECORDS[:4])
        assert not store.warnings
    assert not (tmp_path / "records.torn").exists()


def test_damage_in_the_middle_is_named_by_line_and_set_aside(tmp_path: Path) -> None:
    write(tmp_path)
    path = tmp_path / "records.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b'{"id": "broken"}\n\xff\xfe\n' + lines[1])
    reader = RecordStore(tmp_path)
    assert reader.read() == tuple(RECORDS[:2])
    assert ["line 2" in reader.warnings[0], "line 3" in reader.warnings[1]] == [True, True]
    with RecordStore(tmp_path) as store:
        store.append(RECORDS[2])
    assert store.read() == tuple(RECORDS[:3])
    assert (tmp_path / "records.torn").read_bytes() == b'{"id": "broken"}\n\xff\xfe\n'


def test_two_writers_are_refused_and_the_lock_goes_with_its_holder(tmp_path: Path) -> None:
    with RecordStore(tmp_path), pytest.raises(StoreError, match="another run writes to"), RecordStore(tmp_path):
        pass
    write(tmp_path)


def test_a_writer_may_wait_for_another_to_end(tmp_path: Path) -> None:
    other = RecordStore(tmp_path)
    other.__enter__()
    threading.Timer(0.5, other.__exit__, (None, None, None)).start()
    with RecordStore(tmp_path, wait_s=60.0) as store:
        store.append(RECORDS[0])
    assert store.read() == (RECORDS[0],)


def _write_until_killed(folder: Path, ready: IO[bytes]) -> None:
    with RecordStore(folder) as store:
        while True:
            store.append(RECORDS[0])
            os.write(ready.fileno(), b".")


def test_sigkill_of_the_writer_leaves_whole_records_and_no_lock(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as ready, os.fdopen(writing, "wb") as appends:
        writer = multiprocessing.get_context("fork").Process(target=_write_until_killed, args=(tmp_path, appends))
        writer.start()
        appended = len(ready.read(5))
        assert writer.pid is not None
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
    with RecordStore(tmp_path) as store:
        store.append(RECORDS[1])
        found = store.read()
    assert found[-1] == RECORDS[1]
    assert len(found) > appended
    assert all(record == RECORDS[0] for record in found[:-1])


def test_a_full_disk_is_named_and_earlier_records_are_intact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, 2)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with RecordStore(tmp_path) as store:
        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", full)
            with pytest.raises(StoreError, match=r"No space left on device.*make room"):
                store.append(RECORDS[2])
        assert store.read() == tuple(RECORDS[:2])
        store.append(RECORDS[2])
    assert store.read() == tuple(RECORDS[:3])
    assert store.warnings == []


def test_a_record_that_fits_only_in_part_leaves_no_part(tmp_path: Path) -> None:
    write(tmp_path, 1)
    path = tmp_path / "records.jsonl"
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with RecordStore(tmp_path) as store:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 100, limits[1]))
        try:
            with pytest.raises(StoreError, match="No space left on device"):
                store.append(RECORDS[1])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert path.read_bytes() == before


def test_appending_needs_the_lock(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="with statement"):
        RecordStore(tmp_path).append(RECORDS[0])


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="choose another folder"), RecordStore(tmp_path / "file" / "run"):
        pass


def test_starting_over_keeps_the_old_records(tmp_path: Path) -> None:
    write(tmp_path)
    old = (tmp_path / "records.jsonl").read_bytes()
    with RecordStore(tmp_path) as store:
        kept = store.set_aside(datetime(2026, 3, 1, 12, tzinfo=UTC))
        assert store.read() == ()
    assert kept == tmp_path / "records.20260301T120000Z.jsonl"
    assert kept.read_bytes() == old


def test_each_line_is_parsed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path)
    parsed, validate = list[bytes](), Record.model_validate_json

    def counting(line: bytes) -> Record:
        parsed.append(line)
        return validate(line)

    monkeypatch.setattr(Record, "model_validate_json", counting)
    with RecordStore(tmp_path) as store:
        store.append(RECORDS[3])
        assert list(store.latest().values()) == list(store.read()) == RECORDS[:4]
    assert len(parsed) == 3


def test_two_processes_of_one_command_append_whole_lines(tmp_path: Path) -> None:
    with RecordStore(tmp_path) as store:
        context = multiprocessing.get_context("spawn")
        workers = [context.Process(target=_append, args=(store, i)) for i in range(2)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert [worker.exitcode for worker in workers] == [0, 0]
        found = store.read()
    assert {record.id for record in found} == {record.id for record in RECORDS[:2]}
    assert len(found) == 2 * TIMES
    assert store.warnings == []


def _append(store: RecordStore, which: int) -> None:
    for _ in range(TIMES):
        store.append(RECORDS[which])
