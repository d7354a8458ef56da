"""The turns of a party and of its GPU, which wait for each other by two counters in memory of the host.

The graph after a round is enqueued while the one before the round runs, and the stream then waits for its turn. So a
round costs neither the launch of a graph nor a synchronization, which together take longer than most graphs run.
"""

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any, Protocol

import torch

from parties.errors import PartyError

_BEGUN, _ENDED = range(2)
_LOOKS, _YIELDS = 256, 1 << 16
_BYTES = 8
_GREATER_OR_EQUAL = 0  # CU_STREAM_WAIT_VALUE_GEQ; a write has no flags


class StreamRefused(PartyError):  # noqa: N818 - named for what happened
    """The driver refused to let a stream wait for memory of the host, or to write it."""


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
            StreamRefused: See there.
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
        if (turn := self._ahead) is not None:
            self._numbers[_BEGUN] = self._newest
            self._ahead = None
            self._await(self._newest)
            turn.dropped()

    def _enqueue(self, turn: Turn) -> None:
        wait, write = _operations()
        self._newest, self._ahead = self._newest + 1, turn
        _check(wait(None, self._places[_BEGUN], self._newest, _GREATER_OR_EQUAL))
        turn.launch()
        _check(write(None, self._places[_ENDED], self._newest, 0))

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


@cache
def _operations() -> tuple[Callable[..., int], Callable[..., int]]:
    """The driver's functions that let a stream wait for a number of 64 bits, and write one."""
    driver: Any = ctypes.PyDLL("libcuda.so.1")  # keeps the interpreter's lock: they return at once
    found = driver.cuStreamWaitValue64_v2, driver.cuStreamWriteValue64_v2
    for function in found:
        function.argtypes = [ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_uint]
    return found


def _check(status: int) -> None:
    if status:
        raise StreamRefused(
            f"the driver refused to let a stream wait for memory of the host: CUDA's error {status}; such waits need "
            f"CUDA 12 or later and a GPU that is not virtual; use gpu: false"
        )
