"""Files of stored material: read once, by the party and for the cell they were dealt for, whole, or not at all."""

import os
import resource
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parties.engines.fss.courier import END
from parties.engines.fss.stored import FOLDER_VARIABLE, MaterialFile, StoredMaterial, new_file, tag_of, write
from parties.errors import PeerLost

SEED, TAG = bytes(32), tag_of(bytes(32), "from epoch 7")
FRAMES = [b"one", bytes(5000), b"three"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    return tmp_path


def written(frames: list[bytes] = FRAMES, tag: bytes = TAG) -> Path:
    path, left = new_file(), [*frames, END]
    write(path, tag, lambda: left.pop(0))
    return path


def everything(material: StoredMaterial) -> list[bytes]:
    """All frames; the end, and whatever is wrong, is an error."""
    frames: list[bytes] = []
    try:
        while True:
            frames.append(material.next())
    except MaterialFile as error:
        if f"holds no more than {len(frames)} frames" not in str(error):
            assert frames == FRAMES[: len(frames)]
            raise
    return frames


@settings(max_examples=30, deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=3000), max_size=6))
def test_frames_come_back_in_order_and_nothing_stays(frames: list[bytes]) -> None:
    path = written(frames)
    material = StoredMaterial(path, TAG)
    assert not path.exists()
    assert not path.parent.exists()
    assert everything(material) == frames


def test_only_this_user_may_look(folder: Path) -> None:
    path = written()
    assert path.parent.parent == folder
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_party_that_starts_again_with_the_same_file_is_refused() -> None:
    path = written()
    StoredMaterial(path, TAG).close()
    with pytest.raises(MaterialFile, match=r"material is used once.*run the cell again"):
        StoredMaterial(path, TAG)


@pytest.mark.parametrize(
    "tag",
    [tag_of(b"\1" * 32, "from epoch 7"), tag_of(SEED, "from epoch 8")],
    ids=["another session or party", "another cell"],
)
def test_a_file_of_another_session_party_or_cell_is_refused(tag: bytes) -> None:
    theirs, mine = written(tag=tag), written()
    theirs.replace(mine)
    with pytest.raises(MaterialFile, match="belongs to another session, cell or party") as caught:
        StoredMaterial(mine, TAG)
    assert str(mine) in str(caught.value)
    assert caught.value.status == "config_error"


def test_a_copy_is_refused_before_and_after_the_original_was_used() -> None:
    path = written()
    copies = [Path(shutil.copy(path, path.parent.parent / name)) for name in ("before", "after")]
    with pytest.raises(MaterialFile, match="is a copy"):
        StoredMaterial(copies[0], TAG)
    StoredMaterial(path, TAG).close()
    with pytest.raises(MaterialFile, match="is a copy"):
        StoredMaterial(copies[1], TAG)


def test_a_second_name_of_a_used_file_is_refused(folder: Path) -> None:
    path = written()
    os.link(path, folder / "second")
    StoredMaterial(path, TAG).close()
    with pytest.raises(MaterialFile, match="was used before"):
        StoredMaterial(folder / "second", TAG)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_a_torn_file_never_gives_a_wrong_frame(data: st.DataObject) -> None:
    path = written()
    os.truncate(path, data.draw(st.integers(0, path.stat().st_size - 1)))
    with pytest.raises(MaterialFile, match=r"ends (before|within) frame \d: it was cut off"):
        everything(StoredMaterial(path, TAG))


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_a_flipped_bit_never_gives_a_wrong_frame(data: st.DataObject) -> None:
    path = written()
    octets = bytearray(path.read_bytes())
    bit = data.draw(st.integers(0, 8 * len(octets) - 1))
    octets[bit // 8] ^= 1 << bit % 8
    with path.open("r+b") as file:
        file.write(octets)
    with pytest.raises(MaterialFile) as caught:
        everything(StoredMaterial(path, TAG))
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"a text that somebody keeps here\n" * 9], ids=["empty", "text"])
def test_a_foreign_file_is_refused_and_left_alone(content: bytes, folder: Path) -> None:
    path = folder / "notes"
    path.write_bytes(content)
    with pytest.raises(MaterialFile, match=r"is no stored material|was cut off"):
        StoredMaterial(path, TAG)
    assert path.read_bytes() == content


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_named_with_the_fix_and_leaves_nothing(folder: Path) -> None:
    words = rf"cannot write .*material beyond \d+ bytes: .*free space there, or set {FOLDER_VARIABLE}"
    with largest_file(1 << 20), pytest.raises(MaterialFile, match=words):
        written([bytes(1 << 19)] * 4)
    assert list(folder.iterdir()) == []


def test_what_breaks_off_leaves_nothing(folder: Path) -> None:
    def broken() -> bytes:
        raise PeerLost("dealer", "offline.material", 0, 9)

    with pytest.raises(PeerLost):
        write(new_file(), TAG, broken)
    assert list(folder.iterdir()) == []


def test_a_folder_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, "/nowhere/at/all")
    with pytest.raises(MaterialFile, match=rf"/nowhere/at/all.*set {FOLDER_VARIABLE}"):
        new_file()


def test_a_tag_tells_nothing_of_the_seed() -> None:
    assert SEED not in TAG
    assert len({tag_of(bytes([seed]) * 32, "from epoch 7") for seed in range(20)}) == 20
