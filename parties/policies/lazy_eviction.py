# ruff: noqa: ARG002 - hooks have their arguments, needed or not
"""LazyEviction (arXiv 2506.15969): keeps tokens that are likely to be attended to again."""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from parties.decoding.program import Program
from parties.policies.checks import OutOfRange, number, whole
from parties.policies.decoding import DecodingEviction, reach

if TYPE_CHECKING:
    from parties.decoding.cache import Cache, LayerCache
    from parties.engines.base import Engine

UNITS = 512
"""Scores are integer multiples of 1 / UNITS, so that equal states have equal scores in every engine."""

_LONGEST = 8
"""The second term is negligible for longer recurrence intervals (0.0018 at 8)."""


@dataclass(frozen=True)
class LazyEviction(DecodingEviction):
    """Keeps tokens whose time without attention is short compared with their longest such time before.

    Each cached token has an age A, the steps since its attention was last at least `alpha`, and a maximum recurrence
    interval M, the longest age at which that happened. Every `compression_interval` steps the last
    `compression_interval` tokens are kept, and of the rest those with the highest

        I = 2 / (1 + exp(c + A / M)) + [M > 0] 2 / (1 + exp(M - 1)),   c = 1 with `offset`, else 0,

    in multiples of 1/512 and with the first term quantised to `levels` classes. This takes comparisons of A with public
    multiples of M, and of M with 1 to 8, and no division or exponential. Among equals the newer token is evicted. The
    prompt's tokens begin with A = M = 0 and are kept until the first eviction, as in the released code.

    Attributes:
        compression_ratio: Share of the prompt's tokens that is removed, in [0, 1); 0 keeps everything.
        mode: What happens to evicted rows, `compact` or `mask`.
        compression_interval: Number of tokens decoded between two evictions, and of last tokens that are always kept
            (the paper's W).
        compact_every: In `mask` mode, number of tokens decoded before evicted rows are removed; a multiple of the
            interval; 0 never.
        alpha: Least attention that resets a token's age, in [0, 1].
        offset: Whether the first term has the released code's additional 1 in the exponent.
        levels: Number of classes of the first term.
    """

    name: ClassVar[str] = "lazy_eviction"
    per_token: ClassVar[tuple[str, ...]] = ("age", "recurrence")
    keeps: ClassVar[str] = "all of the prompt until the first eviction; then, by key head, tokens due to recur"
    step_cost: ClassVar[str] = (
        "H T products to divide the weights, (H + G) T comparisons, G T products; every W steps 23 G B comparisons and "
        "one selection among B + W by key head, which moves 2 G (B + W) rows"
    )
    source: ClassVar[str] = (
        "Zhang et al., arXiv 2506.15969; the score of the released code, whose first term has an additional 1 that the "
        "paper does not have (`offset`). The code keeps state by query head and repeats keys; here a key head's token "
        "is hit if any head of its group hits it. With 16 fraction bits alpha = 1e-4 is seven units, so private runs "
        "may classify tokens close to it differently"
    )
    by_head: ClassVar[bool] = True

    alpha: float = 1e-4
    offset: bool = True
    levels: int = 16

    def __post_init__(self) -> None:
        """Checks the ranges.

        Raises:
            ValueError: A parameter is outside its range; the message names it, its value and the allowed values.
        """
        super().__post_init__()
        number("alpha", self.alpha, 0.0, 1.0)
        whole("levels", self.levels, 1)
        if type(self.offset) is not bool:
            raise OutOfRange("offset", self.offset, "true or false")

    @property
    def observes(self) -> bool:
        """Whether every step's attention updates the ages."""
        return self.compression_ratio > 0

    def cached(self, prompt: int) -> int:
        """All of the prompt: nothing is evicted before the end of the first interval."""
        return prompt

    def counted(self, prompt: int) -> int:
        """All of the prompt."""
        return prompt

    def protected(self, prompt: int) -> tuple[int, int]:
        """The last interval."""
        return 0, min(self.compression_interval, self.budget(prompt))

    def after_prefill(self, engine: "Engine", cache: "Cache", layer: int, q: Any) -> Program[None]:
        """Initialises ages and recurrence intervals with zero."""
        here = cache.layers[layer]
        if self.compression_ratio:
            for name in self.per_token:
                here.state[name] = engine.constant(torch.zeros(here.k.shape[0], here.tokens))
        return
        yield

    def begin_tokens(self, count: int) -> dict[str, torch.Tensor]:
        """Ages count up to zero at the token's own step."""
        return super().begin_tokens(count) | {"age": -torch.arange(1.0, count + 1)}

    def remember(self, engine: "Engine", cache: "Cache", here: "LayerCache", weights: Any) -> Program[None]:
        """Ages all tokens by a step, and resets the age of those that are attended to."""
        heads, _, columns = weights.shape
        kv_heads, longest = here.k.shape[0], reach(cache)
        group = weights.reshape(kv_heads, heads // kv_heads, columns)
        most = (yield from engine.largest(group, dim=1)).reshape(kv_heads, columns)
        missed = yield from engine.negative(engine.bounded(most - engine.constant(torch.tensor(self.alpha)), 2.0))
        one = engine.constant(torch.ones(kv_heads, columns))
        age = engine.bounded(here.state["age"] + one, longest)
        interval = engine.bounded((yield from engine.mul(one - missed, age)), longest)
        known = engine.bounded(here.state["recurrence"], longest)
        here.state["age"] = engine.bounded(age - interval, longest)
        here.state["recurrence"] = engine.bounded((yield from engine.maximum(known, interval)), longest)

    def rate(
        self, engine: "Engine", cache: "Cache", here: "LayerCache", weights: Any, span: slice
    ) -> Program[tuple[Any, float]]:
        """The score in units, times the number of candidates, plus the candidates' order as a tie break."""
        age, recurrence = (here.state[name][:, span] for name in self.per_token)
        groups, m = age.shape
        ratios, drops = self._first_term()
        edges = [age - recurrence * ratio - engine.constant(torch.tensor(1 / 32)) for ratio in ratios]
        edges += [recurrence - engine.constant(torch.tensor(i + 0.5)) for i in range(_LONGEST + 1)]
        stacked = engine.cat([edge.reshape(1, groups, m) for edge in edges], dim=0)
        below = yield from engine.negative(engine.bounded(stacked, 8.0 * reach(cache)))
        steps = engine.public(torch.tensor([*drops, *_second_term()]).double() * m)
        order = engine.constant(torch.arange(m - 1, -1, -1).double().expand(groups, m))
        score = (below * steps.reshape(-1, 1, 1)).sum(0) + order
        return score, float(2 * UNITS * (m + 1))

    def _first_term(self) -> tuple[list[float], list[int]]:
        """Returns the ratios A / M that separate the classes, and the differences between their scores in units."""
        offset = 1.0 if self.offset else 0.0
        highest = 2 / (1 + math.exp(offset))
        ends = [highest * (1 - j / self.levels) for j in range(self.levels + 1)]
        ratios = [math.log(2 / end - 1) - offset for end in ends[1:-1]]
        middles = [round(UNITS * (a + b) / 2) for a, b in pairwise(ends)]
        return ratios, [a - b for a, b in pairwise(middles)]


def _second_term() -> list[int]:
    """Returns minus the increments of the second term, in units, as M reaches 1, 2, ... 9.

    They are negated because the program adds them where M is *below* an edge.
    """
    values = [0, *(round(UNITS * 2 / (1 + math.exp(m - 1))) for m in range(1, _LONGEST + 1)), 0]
    return [a - b for a, b in pairwise(values)]
