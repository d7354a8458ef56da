"""Preprocessing on disk: its file has no name, and it is read once, whole, or not at all."""

import errno
import os
import random
import resource
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from parties.engines.fss.dealing.folder import FOLDER_VARIABLE, space
from parties.engines.fss.dealing.read_ahead import FramesAhead
from parties.engines.fss.dealing.sender import END
from parties.engines.fss.dealing.storage import StorageError, StoredFrames, new_file, write
from parties.engines.fss.dealing.stored_receiver import StoredReceiver
from parties.engines.fss.randomness.frames import LONGEST_BYTES, FrameReader, FrameWriter
from parties.errors import PeerLost
from parties.metering.meter import StageMeter
from parties.metering.stages import RECORDING
from tests.helpers.waiting import eventually
from tests.helpers.wires import child

FRAMES = [b"one", bytes(5000), b"three"]
Kind = type[StoredFrames] | type[FramesAhead]
KINDS = (StoredFrames, FramesAhead)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    return tmp_path


@pytest.fixture(params=["without a name", "with a name at first"])
def file_system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A file system with O_TMPFILE, and one without."""
    if request.param != "without a name":
        honest = os.open

        def without(path: str, flags: int, *more: int, **named: int) -> int:
            if flags & os.O_TMPFILE == os.O_TMPFILE:
                raise OSError(errno.EOPNOTSUPP, "Operation not supported")
            return honest(path, flags, *more, **named)

        monkeypatch.setattr(tempfile._os, "open", without)  # type: ignore[attr-defined]
    return str(request.param)


def written(frames: list[bytes] = FRAMES) -> IO[bytes]:
    file, left = new_file(), [*frames, END]
    write(file, lambda: left.pop(0))
    return file


def everything(material: StoredFrames | FramesAhead) -> list[bytes]:
    """Reads all frames; the end is an error, like any fault."""
    frames: list[bytes] = []
    try:
        while True:
            frames.append(bytes(material.next()))
    except StorageError as error:
        if f"holds only {len(frames)} frames" not in str(error):
            assert frames == FRAMES[: len(frames)]
            raise
    return frames


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=30)
@given(frames=st.lists(st.binary(min_size=1, max_size=3000), max_size=6))
def test_frames_come_back_in_order(kind: Kind, frames: list[bytes]) -> None:
    assert everything(kind(written(frames))) == frames


@pytest.mark.parametrize("kind", KINDS)
def test_frames_of_all_sizes_up_to_the_longest_come_back(kind: Kind) -> None:
    """More than the system is asked for in advance."""
    drawn, sizes = random.Random(0), [LONGEST_BYTES, 1, 5000, LONGEST_BYTES - 1] * 6
    frames = [drawn.randbytes(size) for size in sizes]
    assert everything(kind(written(frames))) == frames


def test_waiting_for_the_dealers_recording_belongs_to_recording() -> None:
    meter, awaited = StageMeter(), list[str]()
    dealer: Any = SimpleNamespace(await_peer=lambda: awaited.append(meter.current))
    StoredReceiver(dealer, meter).await_recording()
    assert awaited == [RECORDING]


@pytest.mark.usefixtures("file_system")
def test_the_file_is_in_no_folder_while_it_is_written_and_read(folder: Path) -> None:
    seen, left = [], [*FRAMES, END]

    def receive() -> bytes:
        seen.append(list(folder.iterdir()))
        return left.pop(0)

    file = new_file()
    write(file, receive)
    material = StoredFrames(file)
    while len(seen) < 2 * len(FRAMES):
        assert material.next()
        seen.append(list(folder.iterdir()))
    assert not any(seen)
    assert os.fstat(file.fileno()).st_nlink == 0
    assert os.fstat(file.fileno()).st_dev == folder.stat().st_dev
    material.close()


@pytest.mark.parametrize("when", ["writes", "reads"])
@pytest.mark.usefixtures("file_system")
def test_a_party_that_is_killed_leaves_nothing(folder: Path, when: str) -> None:
    reached = folder.parent / "reached"

    def party() -> None:
        left = [*FRAMES, END]

        def receive() -> bytes:
            if when == "writes" and len(left) == 2:
                wait()
            return left.pop(0)

        file = new_file()
        write(file, receive)
        StoredFrames(file).next()
        wait()

    def wait() -> None:
        reached.touch()
        signal.pause()

    with child(party) as pid:
        assert eventually(reached.exists)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert list(folder.iterdir()) == []


def test_stored_randomness_of_an_earlier_attempt_or_cell_is_not_used() -> None:
    frames: list[bytes] = []
    dealt = FrameWriter(frames.append)
    for epoch in (7, 8):
        dealt.begin(epoch)
        dealt.put(torch.full((4,), epoch, dtype=torch.uint8))
        dealt.flush()
    material = StoredFrames(written(frames))
    reader = FrameReader(material.next)
    reader.begin(8)
    assert reader.take((4,), np.uint8).tolist() == [8] * 4
    material.close()
    again = FrameReader(StoredFrames(written(frames)).next)
    again.begin(9)
    with pytest.raises(StorageError, match="all of them were used"):
        again.take((4,), np.uint8)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40)
@given(data=st.data())
def test_a_truncated_file_never_gives_a_wrong_frame(kind: Kind, data: st.DataObject) -> None:
    file = written()
    os.ftruncate(file.fileno(), data.draw(st.integers(0, os.fstat(file.fileno()).st_size - 1)))
    with pytest.raises(StorageError, match=r"ends (before|within) frame \d: it was cut off"):
        everything(kind(file))


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40)
@given(data=st.data())
def test_a_flipped_bit_never_gives_a_wrong_frame(kind: Kind, data: st.DataObject) -> None:
    file = written()
    bit = data.draw(st.integers(0, 8 * os.fstat(file.fileno()).st_size - 1))
    (octet,) = os.pread(file.fileno(), 1, bit // 8)
    os.pwrite(file.fileno(), bytes([octet ^ 1 << bit % 8]), bit // 8)
    with pytest.raises(StorageError, match="run the cell again"):
        everything(kind(file))


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_named_with_the_fix(folder: Path) -> None:
    words = rf"cannot write randomness to {folder} beyond \d+ bytes: .*free space there, or set {FOLDER_VARIABLE}"
    with largest_file(1 << 20), pytest.raises(StorageError, match=words) as caught:
        written([bytes(1 << 19)] * 4)
    assert caught.value.status == "config_error"


def test_an_error_of_the_link_comes_through_and_the_file_is_freed() -> None:
    file = new_file()

    def broken() -> bytes:
        raise PeerLost("dealer", "offline.material", 0, 9)

    with pytest.raises(PeerLost):
        write(file, broken)
    assert file.closed


def test_randomness_is_stored_on_a_disk_rather_than_in_a_folder_that_may_be_in_memory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for variable in (FOLDER_VARIABLE, "TMPDIR"):
        monkeypatch.delenv(variable, raising=False)
    found = space()
    assert found is not None
    assert found.folder == "/var/tmp"  # noqa: S108
    assert found.free > 0
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert (found := space()) is not None
    assert found.folder == str(tmp_path)
    monkeypatch.setenv(FOLDER_VARIABLE, "/nowhere/at/all")
    assert space() is None


def test_a_folder_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, "/nowhere/at/all")
    with pytest.raises(StorageError, match=rf"/nowhere/at/all.*set {FOLDER_VARIABLE}"):
        new_file()
