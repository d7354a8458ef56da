"""The result of a check: one row of the table."""

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """The verdict of one check."""

    OK = "ok"
    NOTE = "note"
    FIX = "fix"


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        check: The kind of check, such as `clock`.
        where: Host, ordered pair of hosts, or network.
        verdict: Whether a fix is needed; a note is for information.
        found: The result, in words.
        fix: The fix; empty unless the verdict is `fix`.
    """

    check: str
    where: str
    verdict: Verdict
    found: str
    fix: str = ""


def fine(check: str, where: str, found: str) -> Finding:
    """A passed check."""
    return Finding(check, where, Verdict.OK, found)


def note(check: str, where: str, found: str) -> Finding:
    """A remark for information."""
    return Finding(check, where, Verdict.NOTE, found)


def wrong(check: str, where: str, found: str, fix: str) -> Finding:
    """A failed check, which would disturb a run."""
    return Finding(check, where, Verdict.FIX, found, fix)
