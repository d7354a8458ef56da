"""A cell's correlated randomness on a party's own disk: written in advance, read once while the party decodes.

The file has no name (`O_TMPFILE`, open(2)): nobody else can open, copy or link it, and the system frees it with the
process that wrote it, however that ends. On a file system without support for that, the file has a name that is removed
before the first byte is written, so that at worst an empty file remains. The file is a sequence of frames, each with
length and checksum, and ends with an empty frame. Its content is used once because it is read once, from the first
frame to the last, in the call that wrote it, and because a `FrameReader` refuses the epochs of another attempt or cell.
"""

import contextlib
import errno
import os
import struct
import tempfile
from collections.abc import Callable
from typing import IO, Any

import numpy as np
import xxhash

from parties.engines.fss.dealing.folder import FOLDER_VARIABLE, folder
from parties.engines.fss.dealing.sender import END
from parties.engines.fss.randomness.frames import LONGEST_BYTES
from parties.errors import PartyError

WANTED_BYTES = 1 << 23
"""What the system is asked to read from disk, each time that so much was read, of what comes AHEAD times so much on."""
AHEAD = 8
_FRAME = struct.Struct("<QQ")  # length, checksum; the last frame is empty
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class StorageError(PartyError):
    """Stored randomness cannot be written or must not be used; the message names the folder and the fix."""

    status = "config_error"


def new_file() -> IO[bytes]:
    """Creates a file without a name in `folder()`.

    Raises:
        StorageError: The folder cannot be written.
    """
    try:
        return tempfile.TemporaryFile(dir=folder(), prefix="mpcbench-randomness-")
    except OSError as error:
        fix = f"set {FOLDER_VARIABLE} to a folder that exists and may be written"
        raise StorageError(f"cannot store randomness in {folder()}: {error.strerror}; {fix}") from error


def write(file: IO[bytes], receive: Callable[[], bytes | bytearray]) -> None:
    """Writes frames up to the empty one, then seeks to the first. A file that cannot be completed is closed.

    Args:
        file: A file of `new_file`.
        receive: Returns the next frame.

    Raises:
        StorageError: The disk is full or reports an error.
    """
    written = 0
    try:
        frame: bytes | bytearray | None = None
        while frame != END:
            frame = receive()
            written += file.write(_FRAME.pack(len(frame), xxhash.xxh3_64_intdigest(frame)))
            written += file.write(frame)
        file.flush()
        file.seek(0)
    except BaseException as error:
        with contextlib.suppress(OSError):  # flushing the buffer may fail in the same way
            file.close()
        if not isinstance(error, OSError):
            raise
        more = f"free space there, or set {FOLDER_VARIABLE} to a folder with more"
        fix = more if error.errno in _FULL else "check that disk"
        raise StorageError(
            f"cannot write randomness to {folder()} beyond {written} bytes: {error.strerror}; {fix}"
        ) from error


class StoredFrames:
    """A file that is read once, from its first frame to its last.

    Args:
        file: A file that `write` has written.
        place: Returns memory for a frame of so many bytes; by default all frames use the same, which stays in the
            processor's cache.
    """

    def __init__(self, file: IO[bytes], place: Callable[[int], memoryview] | None = None) -> None:
        self._file, self._frames, self._wanted = file, 0, 0
        self._place = place or _the_same()
        self._size = os.fstat(file.fileno()).st_size

    def next(self) -> memoryview:
        """The next frame; it may be written, and lasts until the next call if the memory is the same.

        Raises:
            StorageError: The file is damaged or at its end. It is closed then.
        """
        try:
            return self._next()
        except StorageError:
            self.close()
            raise

    def close(self) -> None:
        """Closes the file, which frees its space on disk."""
        self._file.close()

    def _next(self) -> memoryview:
        length, checksum = self._unpack(_FRAME)
        if length > LONGEST_BYTES:
            raise self._wrong(f"is damaged in frame {self._frames}")
        at = self._file.tell()
        if length > self._size - at:
            raise self._wrong(f"ends within frame {self._frames}: it was cut off")
        if at >= self._wanted:
            os.posix_fadvise(self._file.fileno(), at, (AHEAD + 1) * WANTED_BYTES, os.POSIX_FADV_WILLNEED)
            self._wanted = at + WANTED_BYTES
        frame = self._place(length)
        self._file.readinto(frame)  # type: ignore[attr-defined]
        if xxhash.xxh3_64_intdigest(frame) != checksum:
            raise self._wrong(f"is damaged in frame {self._frames}")
        if frame == END:
            raise self._wrong(f"holds only {self._frames} frames, and all of them were used")
        self._frames += 1
        return frame

    def _unpack(self, fields: struct.Struct) -> tuple[Any, ...]:
        data = self._file.read(fields.size)
        if len(data) < fields.size:
            raise self._wrong(f"ends before frame {self._frames}: it was cut off")
        return fields.unpack(data)

    def _wrong(self, what: str) -> StorageError:
        return StorageError(f"randomness stored in {folder()} {what}; check that disk and run the cell again")


def _the_same() -> Callable[[int], memoryview]:
    memory = np.empty(LONGEST_BYTES, np.uint8).data
    return lambda length: memory[:length]
