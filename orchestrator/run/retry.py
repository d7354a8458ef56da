"""What happens to cells that failed before."""

from enum import StrEnum


class Retry(StrEnum):
    """Which recorded cells run again."""

    NONE = "none"
    FAILED = "failed"
