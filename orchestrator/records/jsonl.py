"""A folder with a file of JSON lines, appended to so that a crash loses no line that was finished."""

import errno
import fcntl
import os
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Generic, Self, TypeVar

from pydantic import BaseModel, ValidationError

from orchestrator.records.atomic import sync, write_atomically

_POLL_S = 0.2

Item = TypeVar("Item", bound=BaseModel)


class StoreError(Exception):
    """A folder cannot be used; the message names the reason and the fix."""


class JsonLines(Generic[Item]):
    """A folder whose main file holds one JSON object per line.

    Reading needs nothing else. Writing needs the lock, which `with store:` holds: two commands would mix two runs. A
    copy in a worker process appends under the lock of its sender; lines of several processes never mix.

    Args:
        folder: The folder; made by the first writer.
        name: The file's name. Corrupt lines are moved to a file with the suffix `.torn`.
        model: The model of a line.
        wait_s: Seconds to wait for another writer to end.

    Attributes:
        folder: The folder.
        path: The file.
        warnings: Faults of the file, in words: lines that were left out or moved, and why.
    """

    def __init__(self, folder: Path, name: str, model: type[Item], wait_s: float = 0.0) -> None:
        self.folder, self.path = folder, folder / name
        self.warnings: list[str] = []
        self._model, self._wait_s = model, wait_s
        self._lock: IO[str] | None = None
        self._writable = False
        self._parsed: dict[bytes, Item | str] = {}  # each line is parsed once

    def __getstate__(self) -> dict[str, Any]:
        """Of a copy for another process: the lock stays here."""
        return {**self.__dict__, "_lock": None, "_parsed": {}}

    def __enter__(self) -> Self:
        """Take the lock, and move lines that a crash left half written.

        Raises:
            StoreError: Another process writes here, or the folder cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = (self.folder / ".lock").open("w")
        except OSError as error:
            raise StoreError(f"cannot write to {self.folder}: {error.strerror}; choose another folder") from error
        deadline = time.monotonic() + self._wait_s
        while not _locked(lock):
            if time.monotonic() >= deadline:
                lock.close()
                raise StoreError(
                    f"another run writes to {self.folder} now; wait for it to end, or choose another folder"
                )
            time.sleep(_POLL_S)
        self._lock, self._writable = lock, True
        try:
            self._move_corrupt_lines()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writable = False
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def write(self, name: str, text: str) -> Path:
        """Put a file next to the lines, in one step.

        Returns:
            The file.

        Raises:
            StoreError: The disk is full or the folder cannot be written.
        """
        path = self.folder / name
        self._replace(path, text.encode())
        return path

    def append(self, item: Item) -> None:
        """Add a line; once this returns it survives a crash.

        Raises:
            StoreError: The disk is full or the folder cannot be written. Earlier lines are intact.
        """
        if not self._writable:
            raise StoreError("append needs the lock: use the store in a with statement")
        line = self.line_of(item).encode()
        try:
            with self.path.open("ab", buffering=0) as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                size = os.fstat(file.fileno()).st_size
                try:
                    _write_whole(file, line + b"\n")
                except OSError:
                    file.truncate(size)  # half a line would read as a corrupt one
                    raise
            sync(self.folder)
        except OSError as error:
            raise StoreError(
                f"cannot write {self.label(item)} to {self.path}: {error.strerror}; all earlier ones are intact: "
                f"make room and run the same command again, it resumes"
            ) from error
        self._parsed[line] = item

    def read(self) -> tuple[Item, ...]:
        """All whole lines in the order they were written; a line that cannot be read is named in `warnings`."""
        found = list[Item]()
        for number, line in enumerate(self._lines(), start=1):
            item = self._parse(line)
            if isinstance(item, str):
                self._warn(f"{self.path} line {number} is corrupt and was left out: {item}")
            else:
                found.append(item)
        return tuple(found)

    def line_of(self, item: Item) -> str:
        """The JSON of an item."""
        return item.model_dump_json()

    def label(self, item: Item) -> str:
        """An item in two words, for messages."""
        return f"a {type(item).__name__.lower()}"

    def _parse(self, line: bytes) -> Item | str:
        """The item of a line, or the fault of the line."""
        if line not in self._parsed:
            try:
                self._parsed[line] = self._model.model_validate_json(line)
            except ValidationError as error:
                first = error.errors()[0]
                place = ".".join(map(str, first["loc"]))
                self._parsed[line] = f"{place}: {first['msg']}" if place else first["msg"]
        return self._parsed[line]

    def _lines(self) -> list[bytes]:
        try:
            return [line for line in self.path.read_bytes().split(b"\n") if line.strip()]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StoreError(f"cannot read {self.path}: {error.strerror}; choose another folder") from error

    def _move_corrupt_lines(self) -> None:
        """Move corrupt lines to a file of their own, so that the next append starts on a fresh line."""
        lines = self._lines()
        corrupt = [line for line in lines if isinstance(self._parse(line), str)]
        if not corrupt and (not lines or self.path.read_bytes().endswith(b"\n")):
            return
        if corrupt:
            self._keep(corrupt)
        self._replace(self.path, b"".join(line + b"\n" for line in lines if line not in corrupt))

    def _keep(self, corrupt: list[bytes]) -> None:
        kept = self.path.with_suffix(".torn")
        try:
            with kept.open("ab") as file:
                file.writelines(line + b"\n" for line in corrupt)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise StoreError(f"cannot write {kept}: {error.strerror}; make room first") from error
        self._warn(f"{len(corrupt)} corrupt line(s) of {self.path} were moved to {kept}")

    def _warn(self, text: str) -> None:
        if text not in self.warnings:
            self.warnings.append(text)

    def _replace(self, path: Path, content: bytes) -> None:
        try:
            write_atomically(path, content)
        except OSError as error:
            raise StoreError(f"cannot write {path}: {error.strerror}; make room or choose another folder") from error


def _write_whole(file: IO[bytes], line: bytes) -> None:
    if file.write(line) != len(line):  # a disk that fills up takes what fits and reports no error
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    os.fsync(file.fileno())


def _locked(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
