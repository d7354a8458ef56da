"""A process that must wake up on time: fine timers, real-time priority where that is allowed."""

import ctypes
import os

_PR_SET_TIMERSLACK = 29
_SLACK_NS = 1000
_PRIORITY = 10


def wake_on_time() -> str:
    """Set this process to wake up as punctually as the system lets it.

    Returns:
        The scheduling policy that it now has: `fifo`, or `other` without the right to real-time priority.
    """
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, _SLACK_NS, 0, 0, 0)
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(_PRIORITY))
    except OSError:
        return "other"
    return "fifo"
