"""The turns of a party and of its GPU, which wait for each other by two counters in memory of the host.

The graph after a round is enqueued while the one before the round runs, and the stream then waits for its turn. So a
round costs neither the launch of a graph nor a synchronization, which together take longer than most graphs run.
"""

import ctypes
from functools import cache
from typing import Any, Protocol

import torch

from parties.engines.fss.kernels import driver

_BEGUN, _ENDED = range(2)
_LOOKS, _YIELDS = 256, 1 << 16
_BYTES = 8


class Turn(Protocol):
    """What is enqueued.

    Attributes:
        after: What is enqueued while it runs.
    """

    after: "Turn | None"

    def launch(self) -> None:
        """Launches it on the stream."""

    def dropped(self) -> None:
        """Called after it ran on numbers that never came."""


class Turns:
    """Enqueues graphs on the default stream, and lets each begin when the host has what it reads."""

    def __init__(self) -> None:
        self._counters = torch.zeros(2, dtype=torch.int64, pin_memory=True)
        self._numbers = self._counters.numpy().data
        self._places = [self._counters.data_ptr() + _BYTES * index for index in (_BEGUN, _ENDED)]
        self._newest = 0
        self._ahead: Turn | None = None

    def run(self, turn: Turn) -> None:
        """Lets a turn begin, enqueues the one after it meanwhile, and waits until it has ended.

        Raises:
            DriverRefused: The driver lets no stream wait for memory of the host.
        """
        if self._ahead is not turn:
            self._enqueue(turn)
        number = self._numbers[_BEGUN] = self._newest
        self._ahead = None
        if turn.after is not None:
            self._enqueue(turn.after)
        self._await(number)

    def drop(self) -> None:
        """Lets what was enqueued for a round that failed run on whatever is there, so that the stream goes on."""
        self._numbers[_BEGUN] = self._newest
        if (turn := self._ahead) is not None:
            self._ahead = None
            self._await(self._newest)
            turn.dropped()

    def _enqueue(self, turn: Turn) -> None:
        self._newest += 1
        driver.wait_for(self._places[_BEGUN], self._newest)
        turn.launch()
        driver.write(self._places[_ENDED], self._newest)
        self._ahead = turn

    def _await(self, number: int) -> None:
        numbers, yields = self._numbers, 0
        while True:
            for _ in range(_LOOKS):
                if numbers[_ENDED] >= number:
                    return
            _let_others_run()
            yields += 1
            if yields % _YIELDS == 0:
                torch.cuda.default_stream().query()  # raises the error of a graph that failed


def _let_others_run() -> None:
    """Lets go of the interpreter's lock for a moment; to sleep for 0 seconds would take 50 microseconds."""
    _system().sched_yield()


@cache
def _system() -> Any:
    return ctypes.CDLL(None)
