"""A file is replaced in one step, or stays as it was."""

from pathlib import Path

import pytest

from orchestrator.records.atomic import replacing, write_atomically


def test_a_file_is_written_whole_with_its_mode_and_no_draft_stays(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_atomically(path, "old")
    write_atomically(path, "Gr\u00f6\u00dfe", mode=0o604)
    assert path.read_text(encoding="utf-8") == "Gr\u00f6\u00dfe"
    assert path.stat().st_mode & 0o777 == 0o604
    assert list(tmp_path.iterdir()) == [path]


def test_a_draft_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    write_atomically(path, b"old")

    def fails() -> None:
        with replacing(path) as draft:
            draft.write_bytes(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
