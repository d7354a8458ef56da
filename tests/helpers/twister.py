"""The attack of a semi-honest client on CrypTen's own generator: solves for its state, and predicts it."""

from collections.abc import Sequence

import torch
from torch import Tensor

WORD = 0xFFFFFFFF
STATE = 624


class Twister:
    """MT19937 from its state (Matsumoto, Nishimura, ACM TOMACS 8(1), 1998), or from `STATE` outputs in a row."""

    def __init__(self, outputs: Sequence[int]) -> None:
        self._state, self._next = [untempered(y) for y in outputs], STATE

    def draw(self) -> int:
        """The next 32 bits."""
        if self._next == STATE:
            self._turn()
        y = self._state[self._next]
        self._next += 1
        y ^= y >> 11
        y ^= (y << 7) & 0x9D2C5680
        y ^= (y << 15) & 0xEFC60000
        return y ^ (y >> 18)

    def _turn(self) -> None:
        state = self._state
        for k in range(STATE):
            y = (state[k] & 0x80000000) | (state[(k + 1) % STATE] & 0x7FFFFFFF)
            state[k] = state[(k + 397) % STATE] ^ (y >> 1) ^ (0x9908B0DF if y & 1 else 0)
        self._next = 0


def untempered(y: int) -> int:
    """The word of the state behind an output."""
    y ^= y >> 18
    y ^= (y << 15) & 0xEFC60000
    x = y
    for _ in range(5):
        x = y ^ ((x << 7) & 0x9D2C5680)
    y = x & WORD
    x = y
    for _ in range(3):
        x = y ^ (x >> 11)
    return x & WORD


def continued(seen: Tensor, count: int) -> Tensor | None:
    """The `count` ring elements that torch's generator draws after those `seen`; None if it did not draw them.

    Args:
        seen: Outputs, int64 [n] with n above `STATE` / 2.
        count: Number of elements.
    """
    for low_first in (True, False):
        words = [word for value in seen.tolist() for word in _halves(value, low_first=low_first)]
        twister = Twister(words[:STATE])
        if [twister.draw() for _ in words[STATE:]] == words[STATE:]:
            return torch.tensor([_joined(twister, low_first=low_first) for _ in range(count)])
    return None


def _halves(element: int, *, low_first: bool) -> tuple[int, int]:
    drawn = element + 2**63
    return (drawn & WORD, drawn >> 32) if low_first else (drawn >> 32, drawn & WORD)


def _joined(twister: Twister, *, low_first: bool) -> int:
    first, second = twister.draw(), twister.draw()
    drawn = (second << 32 | first) if low_first else (first << 32 | second)
    return drawn % (2**64 - 1) - 2**63  # as `generate_random_ring_element` asks `torch.randint` for it
