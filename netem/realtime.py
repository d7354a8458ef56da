"""Low-latency wake-ups: fine timers, and real-time priority where that is allowed."""

import ctypes
import os

_PR_SET_TIMERSLACK = 29
_SLACK_NS = 1000
_PRIORITY = 10


def wake_on_time() -> str:
    """Reduce the wake-up latency of this process as far as the system allows.

    Returns:
        The scheduling policy of the process: `fifo`, or `other` without the right to real-time priority.
    """
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, _SLACK_NS, 0, 0, 0)
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(_PRIORITY))
    except OSError:
        return "other"
    return "fifo"
