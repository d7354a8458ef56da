"""Where this machine's leases and labs are written down, and how a process is told from a later one with its id."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

_VARIABLE = "MPCACHE_BENCH_STATE"


def state_dir(*below: str) -> Path:
    """A folder for state, made if need be; readable by its owner only.

    `$MPCACHE_BENCH_STATE`, else `/run/mpcache-bench` for root, else a folder of the user's own.
    """
    if given := os.environ.get(_VARIABLE):
        base = Path(given)
    elif os.geteuid() == 0:
        base = Path("/run/mpcache-bench")
    else:
        base = Path(os.environ.get("XDG_RUNTIME_DIR", tempfile.gettempdir())) / f"mpcache-bench-{os.geteuid()}"
    folder = base.joinpath(*below)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def write_whole(path: Path, values: dict[str, Any]) -> None:
    """Write a file that is, after any crash, either whole or not there."""
    draft = path.with_suffix(f".{os.getpid()}.draft")
    with draft.open("w", encoding="utf-8") as file:
        json.dump(values, file)
        file.flush()
        os.fsync(file.fileno())
    draft.rename(path)


def started(pid: int) -> int | None:
    """When a process started, in ticks since boot: with its id it names the process for good. None if it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return None
    # The name, in brackets, may hold anything. After it: the state, then 18 fields before the start time.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])
