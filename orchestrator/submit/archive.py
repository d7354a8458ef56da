"""A folder as lines of text: how results travel through the log of a job.

Each line of the archive is `mpcb NUMBER BASE64`, the last one `mpcb end COUNT SHA256`. Other lines may stand between
them (Ray writes its own into the log of a job) and are skipped. The content is a gzipped tar of regular files.
"""

import base64
import hashlib
import io
import shutil
import sys
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

_MARK = "mpcb"
_CHUNK = 3000  # bytes a line; a multiple of three, so that no line but the last is padded


class ArchiveError(Exception):
    """The text holds no complete archive, or one that must not be unpacked; the message gives the reason."""


def packed(folder: Path) -> Iterator[str]:
    """The regular files of a folder as lines of text.

    Raises:
        ArchiveError: There is no such folder.
    """
    if not folder.is_dir():
        raise ArchiveError(f"no results at {folder}: the run ended before it wrote any")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and not path.is_symlink():
                tar.add(path, arcname=path.relative_to(folder).as_posix(), recursive=False)
    content = buffer.getvalue()
    starts = range(0, len(content), _CHUNK)
    for number, start in enumerate(starts):
        yield f"{_MARK} {number} {base64.b64encode(content[start : start + _CHUNK]).decode('ascii')}"
    yield f"{_MARK} end {len(starts)} {hashlib.sha256(content).hexdigest()}"


def unpack(lines: Iterable[str], out: Path) -> list[Path]:
    """Write the files of an archive below `out`; files of the same names are replaced.

    Nothing is written unless the whole archive is there, its checksum fits and every member is a file that stays in
    `out`.

    Returns:
        Paths of the files.

    Raises:
        ArchiveError: The archive is incomplete or damaged, or holds a member that is not a file below `out`.
    """
    try:
        with tarfile.open(fileobj=io.BytesIO(_content(lines)), mode="r:gz") as tar:
            members = tar.getmembers()
            targets = [_target(member, out) for member in members]
            for member, target in zip(members, targets, strict=True):
                source = tar.extractfile(member)
                if source is None:
                    raise ArchiveError(f"archive member {member.name!r} has no content")
                target.parent.mkdir(parents=True, exist_ok=True)
                with source, target.open("wb") as sink:
                    shutil.copyfileobj(source, sink)
    except (tarfile.TarError, EOFError) as error:
        raise ArchiveError(f"the archive cannot be read: {error}; fetch it again") from error
    return targets


def _content(lines: Iterable[str]) -> bytes:
    chunks: dict[str, str] = {}
    end: list[str] | None = None
    for line in lines:
        words = line.split()
        if len(words) == 4 and words[:2] == [_MARK, "end"]:
            end = words[2:]
        elif len(words) == 3 and words[0] == _MARK:
            chunks[words[1]] = words[2]
    if end is None or not end[0].isdigit() or sorted(chunks) != sorted(map(str, range(int(end[0])))):
        raise ArchiveError("the archive is incomplete; fetch it again")
    try:
        content = b"".join(base64.b64decode(chunks[str(number)], validate=True) for number in range(len(chunks)))
    except ValueError as error:
        raise ArchiveError(f"the archive is damaged: {error}; fetch it again") from error
    if hashlib.sha256(content).hexdigest() != end[1]:
        raise ArchiveError("the archive is damaged: its checksum does not fit; fetch it again")
    return content


def _target(member: tarfile.TarInfo, out: Path) -> Path:
    root = out.resolve()
    target = (root / member.name).resolve()  # also follows links that are already below `out`
    if not member.isreg() or target == root or not target.is_relative_to(root):
        raise ArchiveError(f"archive member {member.name!r} is no regular file below {out}; nothing was written")
    return target


def main() -> None:
    """Print the folder that the command line names as an archive; this runs as a job on the cluster."""
    try:
        for line in packed(Path(sys.argv[1])):
            sys.stdout.write(f"{line}\n")
    except ArchiveError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
