"""Tasks generated to a length: RULER's needles and variable tracking (arXiv 2404.06654), LongEval's line retrieval.

The structure is that of the benchmarks, the wording is our own. Each task takes a random generator and a function that
decides whether a context fits.
"""

import random
from collections.abc import Callable

from orchestrator.quality.answering import Sample
from orchestrator.quality.filler import hidden_in, names
from orchestrator.quality.metrics import all_found, first_number

Fits = Callable[[str], bool]

_NEEDLE = "One of the special magic numbers for {key} is: {value}."
_ASKED = (
    "\nWhat are all the special magic numbers for {key} mentioned in the text? The special magic numbers for {key} are:"
)
_ONE = "\nWhat is the special magic number for {key} mentioned in the text? The special magic number for {key} is:"
_KEYS, _VALUES, _HOPS, _CHAINS = 4, 4, 3, 2


def needle_single(draw: random.Random, fits: Fits) -> Sample:
    """One number, hidden once."""
    return _needles(draw, fits, keys=1, values=1)


def needle_multikey(draw: random.Random, fits: Fits) -> Sample:
    """One number among similar ones."""
    return _needles(draw, fits, keys=_KEYS, values=1)


def needle_multivalue(draw: random.Random, fits: Fits) -> Sample:
    """All numbers of one name."""
    return _needles(draw, fits, keys=1, values=_VALUES)


def variable_tracking(draw: random.Random, fits: Fits) -> Sample:
    """All variables that hold a value through a chain of assignments, among chains of another value."""
    letters = draw.sample([a + b + c for a in "ABCDE" for b in "FGHIJ" for c in "KLMNO"], _CHAINS * (_HOPS + 1))
    values = draw.sample(range(10_000, 99_999), _CHAINS)
    chains = [letters[i::_CHAINS] for i in range(_CHAINS)]
    lines = [
        f"VAR {chain[hop]} = {value if hop == 0 else 'VAR ' + chain[hop - 1]}."
        for hop in range(_HOPS + 1)
        for chain, value in zip(chains, values, strict=True)
    ]
    question = f"\nWhich variables hold the value {values[0]}, directly or through others? The variables are: VAR"
    return Sample(hidden_in(draw, lines, fits), question, tuple(chains[0]), all_found, 24)


def line_retrieval(draw: random.Random, fits: Fits) -> Sample:
    """The number in one of many lines, as in LongEval."""
    lines: list[str] = []
    for name in names(draw, 144):
        line = f"line {name}: REGISTER_CONTENT is <{draw.randrange(1, 50_000)}>"
        if not fits("\n".join([*lines, line])):
            break
        lines.append(line)
    if not lines:
        raise ValueError("length: too short for one line; ask for a longer one")
    name, value = draw.choice(lines).removeprefix("line ").rstrip(">").split(": REGISTER_CONTENT is <")
    question = f"\nTell me what the REGISTER_CONTENT in line {name} is. The REGISTER_CONTENT in line {name} is <"
    return Sample("\n".join(lines), question, (value,), first_number, 6)


TASKS: dict[str, Callable[[random.Random, Fits], Sample]] = {
    "needle_single": needle_single,
    "needle_multikey": needle_multikey,
    "needle_multivalue": needle_multivalue,
    "variable_tracking": variable_tracking,
    "line_retrieval": line_retrieval,
}


def _needles(draw: random.Random, fits: Fits, keys: int, values: int) -> Sample:
    found = names(draw, keys)
    numbers = draw.sample(range(1_000_000, 9_999_999), keys * values)
    hidden = [
        _NEEDLE.format(key=key, value=numbers[i * values + j]) for i, key in enumerate(found) for j in range(values)
    ]
    draw.shuffle(hidden)
    right = tuple(map(str, numbers[:values]))
    question = (_ONE if values == 1 else _ASKED).format(key=found[0])
    return Sample(hidden_in(draw, hidden, fits), question, right, all_found, 10 * values)
