"""The state folder for leases and labs of this machine, and the start time that identifies a process."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

_VARIABLE = "MPCACHE_BENCH_STATE"


def state_dir(*below: str) -> Path:
    """A folder for state, created if missing; readable by its owner only.

    It is in `$MPCACHE_BENCH_STATE`, else in `/run/mpcache-bench` for root, else in a folder of the user.
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
    """Write a file atomically: after a crash it is either complete or absent."""
    draft = path.with_suffix(f".{os.getpid()}.draft")
    with draft.open("w", encoding="utf-8") as file:
        json.dump(values, file)
        file.flush()
        os.fsync(file.fileno())
    draft.rename(path)


def started(pid: int) -> int | None:
    """Start time of a process in ticks since boot, None if it has exited; with the pid it identifies the process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return None
    # The name, in brackets, may contain any character. After it: the state, then 18 fields before the start time.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])
