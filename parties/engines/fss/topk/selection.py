"""Choosing the best without showing which: shuffle, compare in the open, and carry the choice back as a masked matrix.

The dealer knows a uniformly random permutation P; with shares of P and of P r the parties get shares of the shuffled
values (Chase, Ghosh, Poburinnaya, ASIACRYPT 2020, with a dealer, and a matrix since there are few candidates). All
pairs of shuffled values are compared and the bits are opened. No two values are equal, for their place before the
shuffle decides ties, so the bits are those of a uniformly random ranking and can be simulated: shuffle, then sort in
the open (Hamada et al., ICISC 2012).

Which rows of P won is public, and P is secret: those rows, opened under a mask, are the masked one-hot matrix of the
winners. It fetches blocks (one product) and, transposed, puts them back, as often as one likes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from parties.decoding.program import Program, parallel
from parties.engines.fss.arithmetic import ring
from parties.engines.fss.arithmetic.gates import matmul, open_
from parties.engines.fss.arithmetic.opening import Opening
from parties.engines.fss.arithmetic.products import product
from parties.engines.fss.arithmetic.values import Additive, Masked, cat
from parties.engines.fss.randomness.source import DEALER, Source
from parties.engines.fss.topk.pivots import highest
from parties.engines.fss.topk.ranking import Places, ranked
from parties.engines.fss.topk.sample_sizes import Caps, caps
from parties.options import Comparison
from parties.randomness import uniform

# What pivots save outweighs their rounds from these sizes on, on a link of 100 Mbit/s and 40 ms one way, for two fifths
# chosen (`benchmarks/fss_pivots.py`). `dcf`: 4 rounds more, 0.16 s; at 512 it saves 59 MB offline, 4.7 s. It would pay
# below, too, but rounds are online and keys come ahead. `prefix`: 14 rounds more, as each batch of signs takes its own,
# 0.56 s; at 1,024 it saves 8.6 MB online and offline, 0.69 s, at 512 no more than 1.6 MB.
PIVOTS_FROM = {"dcf": 512, "prefix": 1024}


@dataclass(frozen=True)
class OneHot:
    """Winners as masked one-hot rows, scale 0: [heads, winners, candidates]."""

    rows: Masked

    def fetch(self, blocks: Masked) -> Additive:
        """The winners' blocks of [heads, candidates, m]: [heads, winners, m]. No round, exact."""
        return matmul(self.rows, blocks, limit=blocks.limit)

    def put_back(self, blocks: Masked) -> Additive:
        """Blocks of the winners at their places among the candidates, zero elsewhere: the transpose of `fetch`."""
        return matmul(self.rows.transpose(1, 2), blocks, limit=blocks.limit)


@dataclass(frozen=True)
class Shuffle:
    """A uniformly random secret permutation for each head, as additive shares of matrices, [heads, n, n], scale 0."""

    matrices: Additive
    whole: Tensor | None  # at the dealer

    def apply(self, x: Masked) -> Additive:
        """P x for x [heads, n, m]: no round, 8 offline bytes an element, to the server."""
        source = x.source
        if self.whole is not None:
            dealt = self.whole @ x.mask
            source.shared(dealt.shape, lambda: dealt)
            return Additive(source, source.stand_in(dealt.shape), x.scale, x.limit)
        moved_mask = source.shared(x.shape, lambda: torch.empty(0)).share
        return Additive(source, ring.matmul(self.matrices.share, x.public) - moved_mask, x.scale, x.limit)


def draw(source: Source, heads: int, n: int) -> Shuffle:
    """A fresh shuffle: 8 n^2 offline bytes a head, to the server."""
    whole = _permutations(heads, n) if source.rank == DEALER else torch.empty(0, dtype=torch.int64)
    share = source.shared((heads, n, n), lambda: whole).share
    if source.rank == DEALER:
        share = source.stand_in(share.shape)
    return Shuffle(Additive(source, share, 0, 2.0), whole if source.rank == DEALER else None)


def _permutations(heads: int, n: int) -> Tensor:
    """Sorting uniform keys that only the dealer knows; two are equal with probability n^2 / 2^65."""
    order = uniform(heads, n).argsort(dim=1)
    return torch.eye(n, dtype=torch.int64)[order]


def distinct(x: Masked) -> Masked:
    """Keys that order x [..., n] with the lower index first among equals: 2^b x + (n - 1 - index), never equal.

    Raises:
        ValueError: differences of the keys would not fit the ring.
    """
    n = x.shape[-1]
    shift = max(1, (n - 1).bit_length())
    if (bits := x.bits + shift + 2) > 63:
        raise ValueError(
            f"{n:,} candidates with scores below {x.limit:g}: their keys take {bits} bits, and the ring has 63; "
            f"rate fewer candidates, or bound their scores"
        )
    keys = x.upscaled(x.scale + shift).rescaled(0)
    return keys.plus(torch.arange(n - 1, -1, -1).double())


def winners(x: Masked, count: int) -> Program[Places]:
    """The `count` highest of shuffled distinct keys x [heads, n]: public places, ascending, [heads, count].

    By all pairs: 1 round, 1 bit a pair; `dcf` needs no other. From `PIVOTS_FROM` on by pivots, see `pivots.highest`.

    Raises:
        Missed: the pivots were unlucky ones, with probability below 2^-30 a row.
    """
    heads, n = x.shape
    if n == 1:
        return np.zeros((heads, count), dtype=np.int64)
    if (sizes := by_pivots(n, count, x.source.comparison)) is not None:
        return (yield from highest(x, sizes))
    places = yield from ranked(x)
    return np.sort(places[:, :count], axis=1)


def by_pivots(n: int, count: int, comparison: Comparison) -> Caps | None:
    """The sizes of a choice by pivots, or None where all pairs are compared."""
    if n < PIVOTS_FROM[comparison] or count in (0, n):
        return None
    sizes = caps(n, count)
    return sizes if 2 * sizes.comparisons < n * (n - 1) // 2 else None


def best(keys: Masked, count: int) -> Program[tuple[Shuffle, Places]]:
    """A shuffle of distinct keys [heads, n], and where it put the `count` highest: public places in shuffled order.

    2 rounds and those of a sign: 8 n and n (n - 1) / 16 online bytes a head; n (n - 1) / 2 signs, and 8 n^2 + 8 n
    offline bytes, to the server. The ranking that is opened is uniformly random. Many candidates are chosen by pivots,
    in four rounds more: see `winners`.
    """
    heads, n = keys.shape
    shuffle = draw(keys.source, heads, n)
    shuffled = yield from open_(shuffle.apply(keys.reshape(heads, n, 1)))
    return shuffle, (yield from winners(shuffled.reshape(heads, n), count))


def top(keys: Masked, count: int) -> Program[OneHot]:
    """One-hot rows of the `count` highest of distinct keys [heads, n], in an order that says nothing. Exact.

    What `best` takes, and 1 round and 8 count n online bytes a head.
    """
    shuffle, places = yield from best(keys, count)
    return OneHot((yield from open_(_rows(shuffle.matrices, places))))


def _rows(x: Additive, places: Places) -> Additive:
    """The rows [heads, count, m] of x [heads, n, m] at public places [heads, count]."""
    return x[torch.arange(places.shape[0]).unsqueeze(1), torch.from_numpy(places)]


def top_two_levels(
    coarse: Masked, fine: Masked, parents: Sequence[int | None], k_coarse: int, k_fine: int
) -> Program[OneHot]:
    """One-hot rows of the best fine rivals among the children of the best coarse ones and those without parent.

    Args: as `Engine.top_clusters`. 6 rounds; 3 if no coarse rival competes. The families of the coarse rivals are
    shuffled like these, and the names of the fine rivals like those: what has won is known in shuffled order, so it can
    be opened under a fresh mask at once.
    """
    heads, n = fine.shape
    keys = distinct(fine)
    orphans = [i for i, parent in enumerate(parents) if parent is None]
    if not k_coarse or k_coarse == coarse.shape[1]:
        alive = list(range(n)) if k_coarse else orphans
        chosen = yield from top(keys[:, alive], k_fine)
        return OneHot(_spread(chosen.rows, alive, n))
    children = [[i for i, parent in enumerate(parents) if parent == c] for c in range(coarse.shape[1])]
    families = keys[:, [i for family in children for i in family]].reshape(heads, len(children), -1)
    shuffle, places = yield from best(distinct(coarse), k_coarse)
    survivors, adopted = yield from parallel(
        open_(_rows(shuffle.matrices, places)), open_(_rows(shuffle.apply(families), places))
    )
    rivals = cat([keys[:, orphans], adopted.reshape(heads, -1)], 1)
    shuffle, places = yield from best(rivals, k_fine)
    return OneHot((yield from open_(_rows(shuffle.apply(_names(survivors, children, orphans, n)), places))))


def _names(survivors: Masked, children: Sequence[Sequence[int]], orphans: Sequence[int], n: int) -> Masked:
    """Which of n fine clusters each rival is: one-hot rows of the orphans, then of the children of each survivor.

    Args:
        survivors: one-hot rows of the coarse ones, [heads, survivors, families].
        children: of each family; all have as many.
        orphans: without a parent.
        n: fine clusters.
    """
    heads, chosen, _ = survivors.shape
    size = len(children[0])

    def spread(t: Tensor) -> Tensor:
        named = t.new_zeros(heads, chosen, size, n)
        for place in range(size):
            named[:, :, place, [family[place] for family in children]] = t
        return torch.cat([t.new_zeros(heads, len(orphans), n), named.reshape(heads, chosen * size, n)], 1)

    known = torch.zeros(len(orphans) + chosen * size, n)
    known[torch.arange(len(orphans)), torch.tensor(orphans, dtype=torch.int64)] = 1.0
    return survivors.map(spread, survivors.scale, survivors.limit).plus(known)


def _spread(rows: Masked, columns: Sequence[int], n: int) -> Masked:
    """Columns [heads, k, len(columns)] put at their places among n, zero elsewhere."""

    def spread(t: Tensor) -> Tensor:
        places = torch.tensor(columns, device=t.device)
        return t.new_zeros((*t.shape[:-1], n)).index_copy(-1, places, t)

    return rows.map(spread, rows.scale, rows.limit)


def kept_flags(keys: Masked, count: int) -> Program[Additive]:
    """Additive 0/1 flags of the `count` highest of distinct keys [n], at their own places; scale 0. As `best`."""
    n = keys.shape[0]
    shuffle, places = yield from best(keys.reshape(1, n), count)
    return _rows(shuffle.matrices, places).sum(1).reshape(n).bounded(2.0)


def compact(flags: Additive, count: int, rows: Sequence[Masked]) -> Program[list[Masked]]:
    """Rows [heads, n, d] whose flag is one, in order: [heads, count, d]. 4 rounds.

    32 n online bytes and 8 for each number that stays; 8 n^2 + 16 n offline bytes and 8 for each number of the rows, to
    the server.

    A kept row goes to the number of flags before it, a dropped one behind all kept. Rows and destinations are shuffled
    alike; the opened destinations are then a uniformly random permutation, and say where each shuffled row belongs.
    """
    source, n = flags.source, flags.shape[0]
    places = torch.arange(n, dtype=torch.int64)
    before = flags.map(lambda t: t.cumsum(0) - t, 0, float(n))
    zeros = torch.zeros(n, dtype=torch.int64, device=source.device)
    public = Masked(source, zeros, zeros, 0, 1.0, Masked.CONSTANT)
    target = yield from _targets(flags, before, public.plus(places.double()).bounded(float(n)), count)
    shuffle = draw(source, 1, n)
    moved = [shuffle.apply(row.bounded(row.limit)) for row in rows]
    seen = yield from reveal(shuffle.apply(target.reshape(1, n, 1)))
    order = (torch.arange(n) if source.rank == DEALER else seen.reshape(n).argsort())[:count]
    return list((yield from parallel(*(open_(part[:, order]) for part in moved))))


def _targets(flags: Additive, before: Additive, index: Masked, count: int) -> Program[Masked]:
    """Flag * before + (1 - flag) * (count + index - before). 2 rounds."""
    opened = yield from parallel(open_(flags), open_(before))
    flag, ahead = opened
    gap = ahead.times(2) - index
    gap = gap.plus(-float(count))
    chosen = product([flag, gap])
    return (yield from open_((chosen + (index - ahead).plus(float(count)).additive()).bounded(4.0 * index.limit)))


def reveal(x: Additive) -> Program[Tensor]:
    """Opens additive shares for everyone to see: 1 round. Only for numbers that say nothing."""
    stand_in = torch.zeros(x.shape, dtype=torch.int64)
    hidden = stand_in if x.source.rank == DEALER else x.share
    opened: Tensor
    (opened,) = yield [Opening(hidden, x.source.meter.current)]
    return opened
