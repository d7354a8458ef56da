"""The folder of a run: `records.jsonl`, appended to safely."""

import errno
import fcntl
import os
import time
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from pydantic import ValidationError

from orchestrator.records.record import Record

RECORDS = "records.jsonl"
TORN = "records.torn"


PATIENCE_S = 45.0
"""How long a run waits for another one to let go of its folder."""
_POLL_S = 0.2


class StoreError(Exception):
    """A run's folder cannot be used; the message says why and what to do."""


class RecordStore:
    """Records of one run.

    Reading needs nothing else. Writing needs the lock, which `with store:` holds: two writers would mix two runs.

    Args:
        folder: The run's folder; made by the first writer.
        patience_s: How long to wait for another writer to end. What a killed driver left on emulated hosts ends by
            itself, in seconds or, on a busy machine, half a minute.

    Attributes:
        warnings: What was found wrong with the file, in words: lines set aside, and why.
    """

    def __init__(self, folder: Path, patience_s: float = 0.0) -> None:
        self.folder, self._patience_s = folder, patience_s
        self.warnings: list[str] = []
        self._lock: IO[str] | None = None

    @property
    def path(self) -> Path:
        """The file of records."""
        return self.folder / RECORDS

    def __enter__(self) -> Self:
        """Take the lock, and set aside what a crash left half written.

        Raises:
            StoreError: Another process writes here, or the folder cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = (self.folder / ".lock").open("w")
        except OSError as error:
            raise StoreError(f"cannot write to {self.folder}: {error.strerror}; choose another folder") from error
        deadline = time.monotonic() + self._patience_s
        while not _locked(lock):
            if time.monotonic() >= deadline:
                lock.close()
                raise StoreError(
                    f"another run writes to {self.folder} now; wait for it to end, or choose another folder"
                )
            time.sleep(_POLL_S)
        self._lock = lock
        try:
            self._set_torn_aside()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def write(self, name: str, text: str) -> None:
        """Put a file beside the records, in one step.

        Raises:
            StoreError: The disk is full or the folder cannot be written.
        """
        self._replace(self.folder / name, text)

    def set_aside(self, now: datetime) -> Path | None:
        """Begin anew: rename the file of records after the time, in UTC, and lose none of them.

        Raises:
            StoreError: The folder cannot be written.
        """
        if not self.path.exists():
            return None
        old = self.folder / f"records.{now:%Y%m%dT%H%M%SZ}.jsonl"
        try:
            self.path.rename(old)
        except OSError as error:
            raise StoreError(f"cannot rename {self.path}: {error.strerror}") from error
        return old

    def append(self, record: Record) -> None:
        """Add a record; once this returns it survives a crash.

        Raises:
            StoreError: The disk is full or the folder cannot be written. Earlier records are intact.
        """
        if self._lock is None:
            raise StoreError("append needs the lock: use the store in a with statement")
        line = (record.model_dump_json() + "\n").encode()
        try:
            with self.path.open("ab", buffering=0) as file:
                size = file.tell()
                try:
                    _write_whole(file, line)
                except OSError:
                    file.truncate(size)  # half a record would read as a torn line
                    raise
            _sync_folder(self.folder)
        except OSError as error:
            raise StoreError(
                f"cannot write record {record.id} to {self.path}: {error.strerror}; all earlier records are intact: "
                f"make room and run the same command again, it resumes"
            ) from error

    def read(self) -> tuple[Record, ...]:
        """All whole records in the order they were written; what cannot be read is named in `warnings`."""
        parsed = [(number, _parse(line)) for number, line in enumerate(self._lines(), start=1)]
        for number, found in parsed:
            if isinstance(found, str):
                self._warn(f"{self.path} line {number} is no record and was left out: {found}")
        return tuple(found for _, found in parsed if isinstance(found, Record))

    def latest(self) -> dict[str, Record]:
        """The last record of each cell by its id, in the order in which the cells were first recorded."""
        return {record.id: record for record in self.read()}

    def _lines(self) -> list[bytes]:
        try:
            return [line for line in self.path.read_bytes().split(b"\n") if line.strip()]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StoreError(f"cannot read {self.path}: {error.strerror}") from error

    def _set_torn_aside(self) -> None:
        """Move lines that are no records to `records.torn`, so that the next append starts on a fresh line."""
        lines = self._lines()
        torn = [line for line in lines if isinstance(_parse(line), str)]
        if not torn and (not lines or self.path.read_bytes().endswith(b"\n")):
            return
        if torn:
            self._keep_torn(torn)
        self._replace(self.path, b"".join(line + b"\n" for line in lines if line not in torn).decode())

    def _keep_torn(self, lines: list[bytes]) -> None:
        try:
            with (self.folder / TORN).open("ab") as file:
                file.writelines(line + b"\n" for line in lines)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise StoreError(f"cannot write {self.folder / TORN}: {error.strerror}; make room first") from error
        self._warn(f"{len(lines)} torn line(s) of {self.path} were moved to {self.folder / TORN}")

    def _warn(self, text: str) -> None:
        if text not in self.warnings:
            self.warnings.append(text)

    def _replace(self, path: Path, text: str) -> None:
        """Write a whole file in one step: readers see the old one or the new one."""
        fresh = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            with fresh.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(path)
            _sync_folder(self.folder)
        except OSError as error:
            fresh.unlink(missing_ok=True)
            raise StoreError(f"cannot write {path}: {error.strerror}; make room or choose another folder") from error


def _parse(line: bytes) -> Record | str:
    """The record of a line, or what is wrong with it."""
    try:
        return Record.model_validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        return f"{place}: {first['msg']}" if place else first["msg"]


def _write_whole(file: IO[bytes], line: bytes) -> None:
    if file.write(line) != len(line):  # a disk that fills up takes what fits and reports no error
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _locked(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
