"""Comparison of a public x with a shared r by a prefix tree over XOR-shared bits: few offline bytes, log2 rounds.

It is the carry of a parallel-prefix adder (Kogge, Stone 1973), as in ABY2.0 and CrypTen's set-propagate-kill, over bits
that the dealer shares, with bit triples (Beaver 1991).
"""

import torch

from parties.decoding.program import Program
from parties.engines.fss.arithmetic.gates import xor_bits
from parties.engines.fss.randomness.source import CLIENT, Bits, Source


def less_than(source: Source, x: Bits, r: Bits) -> Program[Bits]:
    """Computes XOR shares of [x < r], [n].

    ceil(log2 k) rounds. Each halves the width w: floor(w/2) pairs open 3 bits each way and are dealt 2 bits, to the
    server; the last pair opens 2 and is dealt 1. Together about 3k/8 online and 2k/8 offline bytes per element.

    Args:
        source: This party's correlated randomness.
        x: Public bits, uint8, lowest first, one per byte, [n, k].
        r: XOR shares of bits, in the same layout.
    """
    client = source.rank == CLIENT
    greater = r * (1 - x)
    equal = r ^ (1 - x) if client else r
    while greater.shape[1] > 1:
        pairs = greater.shape[1] // 2
        rest = slice(2 * pairs, None)
        last = greater.shape[1] == 2
        high_equal, low_greater, low_equal = (
            equal[:, 1 : 2 * pairs : 2],
            greater[:, 0 : 2 * pairs : 2],
            equal[:, 0 : 2 * pairs : 2],
        )
        seconds = [low_greater] if last else [low_greater, low_equal]
        anded = yield from _and_all(source, high_equal, seconds)
        greater = torch.cat([greater[:, 1 : 2 * pairs : 2] ^ anded[0], greater[:, rest]], 1)
        equal = torch.cat([anded[-1], equal[:, rest]], 1)
    return greater[:, 0]


def _and_all(source: Source, first: Bits, seconds: list[Bits]) -> Program[list[Bits]]:
    """ANDs `first` with each of `seconds`: 1 round."""
    opened, masks = yield from xor_bits(source, torch.stack([first, *seconds]))
    result = []
    for public, mask in zip(opened[1:], masks[1:], strict=True):
        both = source.deal_bits(first.shape, lambda mask=mask: masks[0] & mask)  # type: ignore[misc]
        share = (opened[0] & mask) ^ (masks[0] & public) ^ both
        result.append(share ^ (opened[0] & public) if source.rank == CLIENT else share)
    return result
