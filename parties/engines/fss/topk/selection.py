"""Secret top-k selection: shuffle, compare in the open, and return the selection as a masked one-hot matrix.

The dealer knows a uniformly random permutation P; with shares of P and of P r the parties get shares of the shuffled
values (Chase, Ghosh, Poburinnaya, ASIACRYPT 2020, with a dealer, and a matrix since there are few candidates). All
pairs of shuffled values are compared and the bits are opened. No two values are equal, since the index before the
shuffle breaks ties, so the bits are those of a uniformly random ranking and can be simulated: shuffle, then sort in
the open (Hamada et al., ICISC 2012).

It is public which rows of P are in the top k, but P is secret: those rows, opened under a mask, are the masked one-hot
matrix of the selection. It fetches blocks (one product) and, transposed, puts them back, any number of times.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from parties.decoding.program import Program, parallel
from parties.engines.fss.arithmetic import ring
from parties.engines.fss.arithmetic.gates import matmul, open_
from parties.engines.fss.arithmetic.multiplication import multiply
from parties.engines.fss.arithmetic.opening import Opening
from parties.engines.fss.arithmetic.values import Additive, Masked, cat
from parties.engines.fss.kernels.call import call
from parties.engines.fss.randomness.source import DEALER, Source
from parties.engines.fss.topk.pivots import top_k_by_pivots
from parties.engines.fss.topk.ranking import Places, open_ranking
from parties.engines.fss.topk.sample_sizes import SampleSizes, sample_sizes
from parties.options import Comparison
from parties.randomness import fill_uniform

# From these sizes on, pivots save more than their rounds cost, on a link of 100 Mbit/s and 40 ms one way, with two
# fifths selected (`benchmarks/fss_pivots.py`). `dcf`: 4 more rounds, 0.16 s; at 512 they save 83 MB offline, 6.7 s.
# They would pay off below, too, but rounds are online and keys are sent ahead. `prefix`: 14 more rounds, as each batch
# of signs takes its own, 0.56 s; at 1,024 they save 10.5 MB online and offline, 0.84 s, at 512 no more than 2.3 MB.
PIVOTS_FROM = {"dcf": 512, "prefix": 1024}
SPARE_PIVOTS_FROM = 24
"""The same for `dcf` where rounds do not count, since a longer program runs in parallel."""


@dataclass(frozen=True)
class OneHot:
    """A selection as masked one-hot rows, scale 0: [heads, k, candidates]."""

    rows: Masked

    def fetch(self, blocks: Masked) -> Additive:
        """Fetches the selected blocks of [heads, candidates, m]: [heads, k, m]. No round, exact."""
        return matmul(self.rows, blocks, limit=blocks.limit)

    def put_back(self, blocks: Masked) -> Additive:
        """Puts blocks [heads, k, m] at the selected places, zero elsewhere: the transpose of `fetch`."""
        return matmul(self.rows.transpose(1, 2), blocks, limit=blocks.limit)


@dataclass(frozen=True)
class Shuffle:
    """A uniformly random secret permutation per head.

    Attributes:
        matrices: Additive shares of the permutation matrices, [heads, n, n], scale 0.
        whole: The matrices, at the dealer; None elsewhere.
    """

    matrices: Additive
    whole: Tensor | None

    def apply(self, x: Masked) -> Additive:
        """Computes P x for x [heads, n, m]: no round, 8 offline bytes per element, to the server."""
        source = x.source
        if self.whole is not None:
            dealt = self.whole @ x.mask
            source.deal(dealt.shape, lambda: dealt)
            return Additive(source, source.placeholder(dealt.shape), x.scale, x.limit)
        moved_mask = source.deal(x.shape, lambda: torch.empty(0)).share
        return Additive(source, ring.matmul(self.matrices.share, x.public) - moved_mask, x.scale, x.limit)


def draw(source: Source, heads: int, n: int) -> Shuffle:
    """Draws a fresh shuffle: 8 n^2 offline bytes per head, to the server."""
    whole = _permutations(heads, n) if source.rank == DEALER else torch.empty(0, dtype=torch.int64)
    share = source.deal((heads, n, n), lambda: whole).share
    if source.rank == DEALER:
        share = source.placeholder(share.shape)
    return Shuffle(Additive(source, share, 0, 2.0), whole if source.rank == DEALER else None)


def _permutations(heads: int, n: int) -> Tensor:
    """Sorts uniform keys that only the dealer knows; two keys are equal with probability n^2 / 2^65."""
    keys = torch.empty(heads, n, dtype=torch.int64)
    call(fill_uniform, keys)  # a call, so that a replay draws afresh
    order = keys.argsort(dim=1)
    return torch.eye(n, dtype=torch.int64)[order]


def distinct(x: Masked) -> Masked:
    """Makes keys that order x [..., n], the lower index first among equals: 2^b x + (n - 1 - index), never equal.

    Raises:
        ValueError: Differences of the keys would not fit the ring.
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


def top_k_places(x: Masked, count: int, *, spare_rounds: bool = False) -> Program[Places]:
    """Finds the `count` highest of shuffled distinct keys x [heads, n]: public places, ascending, [heads, count].

    By all pairs: 1 round after those of a sign (`dcf` has none), 1 online bit per pair. From `PIVOTS_FROM` or
    `SPARE_PIVOTS_FROM` on by pivots, see `pivots.top_k_by_pivots`.

    Raises:
        PivotsMissed: Too many values lie between the pivots, with probability below 2^-30 per row.
    """
    heads, n = x.shape
    if n == 1:
        return torch.zeros(heads, count, dtype=torch.int64, device=x.source.device)
    if (sizes := pivot_sizes(heads, n, count, x.source.comparison, spare_rounds=spare_rounds)) is not None:
        return (yield from top_k_by_pivots(x, sizes))
    places = yield from open_ranking(x)
    return places[:, :count].sort(1).values


def pivot_sizes(rows: int, n: int, count: int, how: Comparison, *, spare_rounds: bool) -> SampleSizes | None:
    """Returns the sizes of a top-k by pivots in each of `rows` rows, or None if all pairs are compared."""
    least = SPARE_PIVOTS_FROM if spare_rounds and how == "dcf" else PIVOTS_FROM[how]
    if n < least or count in (0, n):
        return None
    sizes = sample_sizes(n, count, rows)
    return sizes if sizes.comparisons < rows * n * (n - 1) // 2 else None


def shuffled_top_k(keys: Masked, count: int, *, spare_rounds: bool = False) -> Program[tuple[Shuffle, Places]]:
    """Shuffles distinct keys [heads, n] and finds the `count` highest: public places in shuffled order.

    2 rounds and those of a sign; per head 8 n and n (n - 1) / 16 online bytes, n (n - 1) / 2 signs, and 8 n^2 + 8 n
    offline bytes, to the server. The opened ranking is uniformly random. Many candidates are selected by pivots, in
    four more rounds: see `top_k_places`.
    """
    heads, n = keys.shape
    shuffle = draw(keys.source, heads, n)
    shuffled = yield from open_(shuffle.apply(keys.reshape(heads, n, 1)))
    return shuffle, (yield from top_k_places(shuffled.reshape(heads, n), count, spare_rounds=spare_rounds))


def top(keys: Masked, count: int, *, spare_rounds: bool = False) -> Program[OneHot]:
    """Selects the `count` highest of distinct keys [heads, n] as one-hot rows, in random order. Exact.

    Costs what `shuffled_top_k` does, 1 round more, and 8 count n online bytes more per head.
    """
    shuffle, places = yield from shuffled_top_k(keys, count, spare_rounds=spare_rounds)
    return OneHot((yield from open_(_rows(shuffle.matrices, places))))


def _rows(x: Additive, places: Places) -> Additive:
    """Returns the rows [heads, count, m] of x [heads, n, m] at public places [heads, count]."""
    return x[torch.arange(places.shape[0]).unsqueeze(1), places]


def top_two_levels(
    coarse: Masked,
    fine: Masked,
    parents: Sequence[int | None],
    k_coarse: int,
    k_fine: int,
    *,
    spare_rounds: bool = False,
) -> Program[OneHot]:
    """Selects the top fine candidates among the children of the top coarse ones and those without a parent.

    6 rounds, 3 if no coarse candidate competes; 4 more for each ranking by pivots. The children of each coarse
    candidate form a group, which is shuffled with it, and the one-hot index of each fine candidate is shuffled with its
    key: the selected places are known in shuffled order, so the groups and indices there can be opened under a fresh
    mask at once.

    Args: See `Engine.top_clusters`.
    """
    heads, n = fine.shape
    keys = distinct(fine)
    orphans = [i for i, parent in enumerate(parents) if parent is None]
    if not k_coarse or k_coarse == coarse.shape[1]:
        alive = list(range(n)) if k_coarse else orphans
        chosen = yield from top(keys[:, alive], k_fine, spare_rounds=spare_rounds)
        return OneHot(_spread(chosen.rows, alive, n))
    children = [[i for i, parent in enumerate(parents) if parent == c] for c in range(coarse.shape[1])]
    groups = keys[:, [i for group in children for i in group]].reshape(heads, len(children), -1)
    shuffle, places = yield from shuffled_top_k(distinct(coarse), k_coarse, spare_rounds=spare_rounds)
    survivors, adopted = yield from parallel(
        open_(_rows(shuffle.matrices, places)), open_(_rows(shuffle.apply(groups), places))
    )
    candidates = cat([keys[:, orphans], adopted.reshape(heads, -1)], 1)
    shuffle, places = yield from shuffled_top_k(candidates, k_fine, spare_rounds=spare_rounds)
    return OneHot((yield from open_(_rows(shuffle.apply(_one_hot_indices(survivors, children, orphans, n)), places))))


def _one_hot_indices(survivors: Masked, children: Sequence[Sequence[int]], orphans: Sequence[int], n: int) -> Masked:
    """Returns the index of each candidate among n fine clusters: one-hot rows of the orphans, then of the survivors.

    Args:
        survivors: One-hot rows of the surviving coarse clusters, [heads, survivors, groups].
        children: Fine clusters of each group; all groups have the same size.
        orphans: Fine clusters without a parent.
        n: Number of fine clusters.
    """
    heads, chosen, _ = survivors.shape
    size = len(children[0])

    def spread(t: Tensor) -> Tensor:
        indices = t.new_zeros(heads, chosen, size, n)
        for place in range(size):
            indices[:, :, place, [group[place] for group in children]] = t
        return torch.cat([t.new_zeros(heads, len(orphans), n), indices.reshape(heads, chosen * size, n)], 1)

    known = torch.zeros(len(orphans) + chosen * size, n)
    known[torch.arange(len(orphans)), torch.tensor(orphans, dtype=torch.int64)] = 1.0
    return survivors.map(spread, survivors.scale, survivors.limit).plus(known)


def _spread(rows: Masked, columns: Sequence[int], n: int) -> Masked:
    """Puts columns [heads, k, len(columns)] at their places among n, zero elsewhere."""

    def spread(t: Tensor) -> Tensor:
        places = torch.tensor(columns, device=t.device)
        return t.new_zeros((*t.shape[:-1], n)).index_copy(-1, places, t)

    return rows.map(spread, rows.scale, rows.limit)


def kept_flags(keys: Masked, count: int) -> Program[Additive]:
    """Flags the `count` highest of distinct keys [n] by additive 0/1, scale 0. Costs what `shuffled_top_k` does."""
    n = keys.shape[0]
    shuffle, places = yield from shuffled_top_k(keys.reshape(1, n), count)
    return _rows(shuffle.matrices, places).sum(1).reshape(n).bounded(2.0)


def compact(flags: Additive, count: int, rows: Sequence[Masked]) -> Program[list[Masked]]:
    """Moves the rows of [heads, n, d] whose flag is one together, in order: [heads, count, d]. 4 rounds.

    32 n online bytes and 8 per number that is kept; 8 n^2 + 16 n offline bytes and 8 per number of the rows, to the
    server.

    The destination of a kept row is the number of flags before it; dropped rows follow all kept ones. Rows and
    destinations are shuffled together, so the opened destinations are a uniformly random permutation.
    """
    source, n = flags.source, flags.shape[0]
    places = torch.arange(n, dtype=torch.int64)
    before = flags.map(lambda t: t.cumsum(0) - t, 0, float(n))
    zeros = torch.zeros(n, dtype=torch.int64, device=source.device)
    public = Masked(source, zeros, zeros, 0, 1.0, Masked.CONSTANT)
    target = yield from _targets(flags, before, public.plus(places.double()).bounded(float(n)), count)
    shuffle = draw(source, 1, n)
    moved = [shuffle.apply(row.bounded(row.limit)) for row in rows]
    destinations = yield from reveal(shuffle.apply(target.reshape(1, n, 1)))
    order = (torch.arange(n) if source.rank == DEALER else destinations.reshape(n).argsort())[:count]
    return list((yield from parallel(*(open_(part[:, order]) for part in moved))))


def _targets(flags: Additive, before: Additive, index: Masked, count: int) -> Program[Masked]:
    """Computes flag * before + (1 - flag) * (count + index - before). 2 rounds."""
    opened = yield from parallel(open_(flags), open_(before))
    flag, ahead = opened
    gap = ahead.times(2) - index
    gap = gap.plus(-float(count))
    chosen = multiply([flag, gap])
    return (yield from open_((chosen + (index - ahead).plus(float(count)).additive()).bounded(4.0 * index.limit)))


def reveal(x: Additive) -> Program[Tensor]:
    """Opens additive shares to both parties: 1 round. Only for numbers that can be simulated."""
    placeholder = torch.zeros(x.shape, dtype=torch.int64)
    hidden = placeholder if x.source.rank == DEALER else x.share
    opened: Tensor
    (opened,) = yield [Opening(hidden, x.source.meter.current)]
    return opened
