"""The Prometheus target file of a run: which exporters to scrape, for `file_sd_configs`."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self


class TargetFile:
    """A `file_sd` file that names the parties' exporters while a run lasts, and is gone afterwards.

    Prometheus reads the file whenever it changes, so each version replaces the last one in a single rename.

    Args:
        path: The file; Prometheus wants the suffix `.json`. Its folder is made if need be.
        run: Value of the label `run`, the name of the experiment.
    """

    def __init__(self, path: Path, run: str) -> None:
        self._path = path
        self._run = run

    def write(self, exporters: Mapping[str, tuple[str, int]]) -> None:
        """Name the exporters of all parties: role to host and port."""
        groups = [
            {"targets": [_authority(host, port)], "labels": {"run": self._run}}
            for host, port in exporters.values()  # whose they are, the metrics say themselves
        ]
        self._path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        fresh.write_text(json.dumps(groups, indent=2) + "\n", encoding="utf-8")
        fresh.replace(self._path)

    def remove(self) -> None:
        """Remove the file, if it is there."""
        self._path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()


def _authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
