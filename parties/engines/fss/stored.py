"""A cell's material on a party's own disk: written while the dealer walks ahead, read once while the party decodes.

A file begins with a word that says what it is, a tag and its own inode; then come the frames, each with length and
checksum, and an end. The tag is a keyed hash of the cell under the seed that only this party and the dealer have, so
material of another session, cell or party is refused. Before the first frame is read the file is marked as used and its
name removed: nobody can open it again, and nothing stays behind even if the party is killed. A copy made before that
has another inode and is refused as well.
"""

import errno
import hashlib
import os
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import xxhash

from parties.engines.fss.courier import END
from parties.errors import PartyError

FOLDER_VARIABLE = "MPCBENCH_OFFLINE_DIR"
"""Environment variable: where each party keeps its material; the system's folder for temporary files if unset."""

_FRESH, _USED = b"mpcfresh", b"mpc-used"
_HEADER = struct.Struct("<8s32sQ")  # what it is, tag, inode
_FRAME = struct.Struct("<QQ")  # length, checksum; the last frame is empty
_FIX = "remove it if it is still there and run the cell again, so that fresh material is dealt"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class MaterialFile(PartyError):  # noqa: N818 - named for what is wrong
    """Stored material cannot be written or must not be used; the message names the file and the fix."""

    status = "config_error"


def tag_of(seed: bytes, cell: str) -> bytes:
    """Names a party's material of a cell; tells nothing about the seed.

    Args:
        seed: what this party and the dealer share, 32 bytes.
        cell: public words that differ between cells of a session.
    """
    return hashlib.blake2b(cell.encode(), key=seed, digest_size=32).digest()


def new_file() -> Path:
    """A path in a folder of its own that only this user may enter.

    Raises:
        MaterialFile: there is no such folder to make it in.
    """
    parent = os.environ.get(FOLDER_VARIABLE)
    try:
        return Path(tempfile.mkdtemp(prefix="mpcbench-material-", dir=parent)) / "material"
    except OSError as error:
        fix = f"set {FOLDER_VARIABLE} to a folder that exists and may be written"
        raise MaterialFile(
            f"cannot keep material in {parent or tempfile.gettempdir()}: {error.strerror}; {fix}"
        ) from error


def write(path: Path, tag: bytes, receive: Callable[[], bytes | bytearray]) -> None:
    """Writes frames up to the empty one. What could not be finished is removed.

    Args:
        path: a new file; nobody else may read it.
        tag: of `tag_of`.
        receive: returns the next frame.

    Raises:
        MaterialFile: the disk is full, or refuses.
    """
    written = 0
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            written += file.write(_HEADER.pack(_FRESH, tag, os.fstat(file.fileno()).st_ino))
            frame: bytes | bytearray | None = None
            while frame != END:
                frame = receive()
                written += file.write(_FRAME.pack(len(frame), xxhash.xxh3_64_intdigest(frame)))
                written += file.write(frame)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        discard(path)
        more = f"free space there, or set {FOLDER_VARIABLE} to a folder with more"
        fix = more if error.errno in _FULL else "see to that disk"
        raise MaterialFile(f"cannot write {path} beyond {written} bytes: {error.strerror}; {fix}") from error
    except BaseException:
        discard(path)
        raise


def discard(path: Path) -> None:
    """Removes a file of `new_file`, with its folder."""
    path.unlink(missing_ok=True)
    if path.parent.is_dir():
        path.parent.rmdir()


class StoredMaterial:
    """A file that is read once, from its first frame to its last.

    Args:
        path: what `write` wrote.
        tag: what it was written with.

    Raises:
        MaterialFile: it is gone, no material, used, a copy, or of another session, cell or party.
    """

    def __init__(self, path: Path, tag: bytes) -> None:
        self.path = path
        self._frames = 0
        try:
            self._file = path.open("r+b")
        except OSError as error:
            reason = f"cannot be opened ({error.strerror}): material is used once, and its file removed"
            raise MaterialFile(f"{path} {reason}; {_FIX}") from None
        self._claim(tag)

    def next(self) -> bytes:
        """The next frame.

        Raises:
            MaterialFile: the file is torn, damaged or at its end.
        """
        length, checksum = self._unpack(_FRAME)
        if length > os.fstat(self._file.fileno()).st_size - self._file.tell():
            raise self._wrong(f"ends within frame {self._frames}: it was cut off")
        frame = self._file.read(length)
        if xxhash.xxh3_64_intdigest(frame) != checksum:
            raise self._wrong(f"is damaged in frame {self._frames}")
        if frame == END:
            raise self._wrong(f"holds no more than {self._frames} frames, and all of them were used")
        self._frames += 1
        return frame

    def close(self) -> None:
        """Lets go of what was not read."""
        self._file.close()

    def _claim(self, tag: bytes) -> None:
        """Makes sure that the file is what it should be, and that nobody uses it again."""
        kind, found, inode = self._unpack(_HEADER)
        if kind == _USED:
            raise self._wrong("was used before: twice would undo what it hides")
        if kind != _FRESH:
            raise self._wrong("is no stored material")
        if found != tag:
            raise self._wrong("belongs to another session, cell or party")
        if inode != os.fstat(self._file.fileno()).st_ino:
            raise self._wrong("is a copy: the original may have been used")
        self._file.seek(0)
        self._file.write(_USED)
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.seek(_HEADER.size)
        discard(self.path)

    def _unpack(self, fields: struct.Struct) -> tuple[Any, ...]:
        data = self._file.read(fields.size)
        if len(data) < fields.size:
            raise self._wrong(f"ends before frame {self._frames}: it was cut off")
        return fields.unpack(data)

    def _wrong(self, what: str) -> MaterialFile:
        self._file.close()
        return MaterialFile(f"{self.path} {what}; {_FIX}")
