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
        told: What was found.
        fix: What to do about it; empty unless the verdict is `fix`.
    """

    check: str
    where: str
    verdict: Verdict
    told: str
    fix: str = ""


def fine(check: str, where: str, told: str) -> Finding:
    """All is well."""
    return Finding(check, where, Verdict.OK, told)


def note(check: str, where: str, told: str) -> Finding:
    """Not wrong, and worth knowing."""
    return Finding(check, where, Verdict.NOTE, told)


def wrong(check: str, where: str, told: str, fix: str) -> Finding:
    """A run would suffer from this."""
    return Finding(check, where, Verdict.FIX, told, fix)
