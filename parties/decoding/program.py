"""Protocols as generators: a program yields values to open and is resumed with the opened values.

The same program then runs over a socket, in one process for tests, and in a dealer's dry run on shapes. Because a
program determines which values to open and not how, independent programs can be stepped in parallel, with their
openings in one message: `parallel`. Engines that communicate eagerly inside a step never yield.
"""

from collections.abc import Callable, Generator, Sequence
from typing import Any, ParamSpec, TypeVar

from parties.metering.meter import StageMeter

T = TypeVar("T")
P = ParamSpec("P")

Openings = Sequence[Any]
"""The values that a program opens in one round; in the same order, what it gets back."""

Program = Generator[Openings, Openings, T]
"""A protocol that returns a `T` after any number of rounds."""


def eager(function: Callable[P, T]) -> Callable[P, Program[T]]:
    """Makes a program of a function that opens nothing through the scheduler."""

    def program(*args: P.args, **kwargs: P.kwargs) -> Program[T]:
        return function(*args, **kwargs)
        yield  # never reached: it makes this function a generator

    program.__doc__ = function.__doc__
    program.__name__ = function.__name__
    return program


def parallel(*programs: Program[Any]) -> Program[list[Any]]:
    """Steps independent programs in lockstep, with one merged opening per round.

    Returns:
        The programs' results, in order. A program that finishes early waits for the others at no cost.
    """
    results: list[Any] = [None] * len(programs)
    wanted: dict[int, Openings] = {}

    def resume(index: int, opened: Openings | None) -> None:
        try:
            wanted[index] = next(programs[index]) if opened is None else programs[index].send(opened)
        except StopIteration as stop:
            results[index] = stop.value
            wanted.pop(index, None)

    for index in range(len(programs)):
        resume(index, None)
    while wanted:
        running = list(wanted)
        opened = yield [opening for index in running for opening in wanted[index]]
        start = 0
        for index in running:
            count = len(wanted[index])
            resume(index, opened[start : start + count])
            start += count
    return results


def staged(meter: StageMeter, stage: str, program: Program[T]) -> Program[T]:
    """Books the time and traffic of a program on a stage, and only while the program itself runs.

    A stage must not stay open across a yield: another program may run there. The round that answers a yield is
    therefore booked by the scheduler, on the stage that is open where `run` is called or on a stage that the openings
    carry.
    """
    opened: Openings | None = None
    while True:
        with meter.stage(stage):
            try:
                wanted = next(program) if opened is None else program.send(opened)
            except StopIteration as stop:
                return stop.value  # type: ignore[no-any-return]
        opened = yield wanted


def run(program: Program[T], exchange: Callable[[Openings], Openings] | None = None) -> T:
    """Runs a program to its end.

    Args:
        program: The program.
        exchange: Opens the values of a round; not needed for engines that never yield.

    Raises:
        TypeError: The program opens values and there is no `exchange`.
    """
    try:
        wanted = next(program)
        while True:
            if exchange is None:
                raise TypeError("this program opens values, so `run` needs an `exchange` to open them with")
            wanted = program.send(exchange(wanted))
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
