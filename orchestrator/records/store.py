"""The folder of a run: `records.jsonl`, one record per line."""

from datetime import datetime
from pathlib import Path

from orchestrator.records.jsonl import JsonLines, StoreError
from orchestrator.records.record import Record

__all__ = ["LOCK_WAIT_S", "RECORDS", "RecordStore", "StoreError"]

RECORDS = "records.jsonl"

LOCK_WAIT_S = 45.0
"""How long a run waits for another one to release its folder: processes that a killed driver left on emulated hosts end
by themselves, in seconds or, on a busy machine, half a minute."""


class RecordStore(JsonLines[Record]):
    """Records of one run.

    Args:
        folder: The run's folder; made by the first writer.
        wait_s: Seconds to wait for another writer to end.
    """

    def __init__(self, folder: Path, wait_s: float = 0.0) -> None:
        super().__init__(folder, RECORDS, Record, wait_s)

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

    def latest(self) -> dict[str, Record]:
        """The last record of each cell by its id, in the order in which the cells were first recorded."""
        return {record.id: record for record in self.read()}

    def label(self, item: Record) -> str:
        """A record by its id."""
        return f"record {item.id}"
