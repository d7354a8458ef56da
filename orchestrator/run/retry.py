"""The treatment of cells with a failed record."""

from enum import StrEnum


class Retry(StrEnum):
    """Which recorded cells run again."""

    NONE = "none"
    FAILED = "failed"
