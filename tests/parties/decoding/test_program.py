"""Programs: opened values, rounds, and the accounting of time."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parties.decoding.program import Openings, Program, eager, parallel, run, staged
from parties.metering.meter import StageMeter


def countdown(name: str, rounds: int) -> Program[list[str]]:
    """Opens one named value per round and returns the replies."""
    seen: list[str] = []
    for left in range(rounds, 0, -1):
        seen += yield [f"{name}{left}"]
    return seen


def opened_by(program: Program[Any]) -> tuple[Any, list[list[str]]]:
    """Runs a program with an exchange that answers in upper case; also returns each round's message."""
    messages: list[list[str]] = []

    def exchange(wanted: Openings) -> Openings:
        messages.append(list(wanted))
        return [item.upper() for item in wanted]

    return run(program, exchange), messages


@given(st.lists(st.integers(0, 5), max_size=6))
def test_parallel_takes_as_many_rounds_as_its_longest_program(lengths: list[int]) -> None:
    names = "abcdef"
    results, messages = opened_by(parallel(*(countdown(names[i], n) for i, n in enumerate(lengths))))
    assert len(messages) == max(lengths, default=0)
    assert results == [[f"{names[i].upper()}{left}" for left in range(n, 0, -1)] for i, n in enumerate(lengths)]
    assert sum(len(message) for message in messages) == sum(lengths)


def test_parallel_programs_nest() -> None:
    results, messages = opened_by(parallel(countdown("a", 2), parallel(countdown("b", 1), countdown("c", 2))))
    assert results == [["A2", "A1"], [["B1"], ["C2", "C1"]]]
    assert messages == [["a2", "b1", "c2"], ["a1", "c1"]]


def test_eager_function_needs_no_exchange() -> None:
    @eager
    def add(x: int, y: int) -> int:
        return x + y

    assert run(add(1, y=2)) == 3
    assert run(parallel(add(1, 2), add(3, 4))) == [3, 7]


def test_a_program_that_opens_needs_an_exchange() -> None:
    with pytest.raises(TypeError, match="exchange"):
        run(countdown("a", 1))


def test_stage_is_closed_while_a_program_waits() -> None:
    clock = iter(range(100))
    meter = StageMeter(clock=lambda: float(next(clock)))
    program = parallel(staged(meter, "norm", countdown("a", 2)), staged(meter, "softmax", countdown("b", 1)))
    stages = []

    def exchange(wanted: Openings) -> Openings:
        stages.append(meter.current)
        return wanted

    assert run(program, exchange) == [["a2", "a1"], ["b1"]]
    assert stages == ["bench.idle", "bench.idle"]
    assert {reading.stage for reading in meter.snapshot()} == {"bench.idle", "norm", "softmax"}


def test_an_error_inside_a_program_leaves_its_stage() -> None:
    meter = StageMeter()

    @eager
    def fail() -> None:
        raise KeyError("inside")

    with pytest.raises(KeyError, match="inside"):
        run(staged(meter, "norm", fail()))
    assert meter.current == "bench.idle"
