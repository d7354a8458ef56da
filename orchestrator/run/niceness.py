"""The priority of the parties on their machines: that of any other program.

Ray starts its workers at niceness 15. Whatever else runs then goes first: Ray's own agents, the relay of emulated
links, a browser that shows a board. A party would wait for them in every round.
"""

import os
from collections.abc import Mapping

_VARIABLE = "RAY_worker_niceness"


def settings() -> dict[str, str]:
    """The environment with which Ray starts."""
    return {_VARIABLE: os.environ.get(_VARIABLE, "0")}


def remarks(niceness: Mapping[str, int]) -> tuple[str, ...]:
    """Warnings for the record of parties, by role, that run behind other programs of their machines."""
    behind = [role for role, nice in niceness.items() if nice > 0]
    if not behind:
        return ()
    how = f"ran at niceness {max(niceness.values())}, behind every other program of the machine"
    return (f"{', '.join(behind)} {how}; start Ray with {_VARIABLE}=0",)
