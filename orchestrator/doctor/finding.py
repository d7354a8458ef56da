"""What a check found: one row of the table."""

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """How it stands with one thing."""

    OK = "ok"
    NOTE = "note"
    FIX = "fix"


@dataclass(frozen=True)
class Finding:
    """One thing that was checked.

    Attributes:
        check: The kind of check, such as `clock`.
        where: Host, ordered pair of hosts, or network.
        verdict: Whether it must be fixed; a note must not, and is worth knowing.
        found: What was found.
        fix: What to do about it; empty unless the verdict is `fix`.
    """

    check: str
    where: str
    verdict: Verdict
    found: str
    fix: str = ""


def fine(check: str, where: str, found: str) -> Finding:
    """All is well."""
    return Finding(check, where, Verdict.OK, found)


def note(check: str, where: str, found: str) -> Finding:
    """Not wrong, and worth knowing."""
    return Finding(check, where, Verdict.NOTE, found)


def wrong(check: str, where: str, found: str, fix: str) -> Finding:
    """A run would suffer from this."""
    return Finding(check, where, Verdict.FIX, found, fix)
