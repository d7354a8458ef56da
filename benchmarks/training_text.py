"""Downloads the text with which the shipped heads were trained: `python benchmarks/training_text.py FOLDER`.

Needs `apt-get` and `dpkg-deb` of Debian 12 and its package mirror. Nothing is installed.

| file | from the package | terms |
| --- | --- | --- |
| `novels.txt`, `persuasion.txt` | `r-cran-janeaustenr`: six novels by Jane Austen | public domain |
| `jargon.txt`, `jargon-end.txt` | `jargon-text`: the Jargon File 4.4.7 | public domain |
| `library.txt`, `tutorial.txt` | `python3.11-doc`: sources of the library reference and of the tutorial | PSF-2.0 |

Heads are trained with the first of each row; the second is held out.
"""

import gzip
import hashlib
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path

PACKAGES = ("r-cran-janeaustenr", "jargon-text", "python3.11-doc")
STRING = b"\x00\x04\x00\x09"  # R's marker of a string: its type, then its length
HELD_OUT_NOVEL = 3
HASHES = {
    "novels.txt": "516730cd554302acb20c72cac6513a8d5e379338096899ba97613bcff09f2c60",
    "persuasion.txt": "726513a6c18bb678427bcbcf7c72d0d20816a67c25b0471b26ddcabf3ebac140",
    "jargon.txt": "378c22b3075600cdc4b9a3cd7529723d7f74f1400ad9d153df17c12d082fd630",
    "jargon-end.txt": "7534674f6b206c9a43175a7e5dcf4753a5d2ee956a5c4e279b82072364247653",
    "library.txt": "04a1e5b212ab152347837d280d005cf6fd662c5e3643795704600f7c06cad1e7",
    "tutorial.txt": "07b7a534895e180d98384cd1d89326dd130817d48863842fb214849376a42306",
}


def fetch(into: Path) -> None:
    """Unpacks the packages into a folder."""
    subprocess.run(["apt-get", "download", *PACKAGES], cwd=into, check=True, stdout=subprocess.DEVNULL)
    for package in into.glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", str(package), str(into)], check=True)


def novels(packed: bytes) -> list[str]:
    """The texts in a database of R objects: each a length and a zlib stream, in which the lines are strings."""
    found = []
    while packed:
        stream = zlib.decompressobj()
        found.append(lines_of(stream.decompress(packed[4:])))
        packed = stream.unused_data
    return found


def lines_of(data: bytes) -> str:
    """The strings of a serialised R character vector."""
    lines, at = [], data.find(STRING)
    while at >= 0:
        size = max(0, int.from_bytes(data[at + 4 : at + 8], "big", signed=True))
        lines.append(data[at + 8 : at + 8 + size].decode())
        at = data.find(STRING, at + 8 + size)
    return "\n".join(lines)


def texts(root: Path) -> dict[str, str]:
    """File names and contents."""
    austen = novels((root / "usr/lib/R/site-library/janeaustenr/data/Rdata.rdb").read_bytes())
    persuasion = austen.pop(HELD_OUT_NOVEL)
    jargon = gzip.decompress((root / "usr/share/doc/jargon-text/jargon.txt.gz").read_bytes()).decode()
    cut = len(jargon) * 9 // 10
    found = {"novels.txt": "\n".join(austen), "persuasion.txt": persuasion}
    found |= {"jargon.txt": jargon[:cut], "jargon-end.txt": jargon[cut:]}
    for part in ("library", "tutorial"):
        pages = sorted((root / "usr/share/doc/python3.11/html/_sources" / part).glob("*.rst.txt"))
        found[f"{part}.txt"] = "\n".join(page.read_text() for page in pages)
    return found


def main(folder: Path) -> int:
    """Writes the files; returns 1 if one of them differs from the training text."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as root:
        fetch(Path(root))
        found = texts(Path(root))
    wrong = 0
    for name, text in found.items():
        data = text.encode()
        (folder / name).write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        same = digest == HASHES.get(name)
        wrong += not same
        print(
            f"{digest}  {name}  {len(data)} bytes{'' if same else '  is not what the shipped heads were trained with'}"
        )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
