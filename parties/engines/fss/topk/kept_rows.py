"""Eviction: secret flags of the rows of a cache that are kept, for all heads or per head, and the rows themselves."""

from collections.abc import Sequence
from dataclasses import dataclass

from parties.decoding.program import Program, parallel
from parties.engines.fss.arithmetic import gates
from parties.engines.fss.arithmetic.values import Additive, Masked, cat
from parties.engines.fss.compare.signs import negative
from parties.engines.fss.topk import selection


@dataclass(frozen=True)
class Kept:
    """The kept rows.

    Attributes:
        flags: 0/1 flags [n], scale 0; one tensor for all heads, or one per head.
        count: Number of flags that are 1, public.
    """

    flags: tuple[Additive, ...]
    count: int


def keep_top(scores: Masked, count: int) -> Program[Kept]:
    """Flags the `count` highest of each row of [n] or [groups, n]. Rounds: see `selection.shuffled_top_k`."""
    keys = selection.distinct(gates.truncate(scores.reshape(-1, scores.shape[-1])))
    rows = [keys[group] for group in range(keys.shape[0])]
    flags = yield from parallel(*(selection.kept_flags(row, count) for row in rows))
    return Kept(tuple(flags), count)


def kept_from(flags: Masked, count: int) -> Program[Kept]:
    """Takes flags [groups, n]: no round; 1 round and a comparison per flag if they carry fraction bits."""
    if flags.scale:
        bits = yield from gates.xor_bits(flags.source, (yield from negative(-flags.bounded(2.0))))
        exact = gates.arithmetic(flags.source, bits)
    else:
        exact = flags.additive()
    return Kept(tuple(exact[group] for group in range(flags.shape[0])), count)


def open_flags(kept: Kept) -> Program[Masked]:
    """Opens the flags as masked values, [groups, n]. 1 round."""
    opened = yield from parallel(*(gates.open_(row) for row in kept.flags))
    return cat([row.reshape(1, *row.shape) for row in opened], 0)  # type: ignore[no-any-return]


def compact(kept: Kept, rows: Sequence[Masked]) -> Program[list[Masked]]:
    """Moves the kept rows of each of `rows` [heads, n, d] together, in order: [heads, count, d]. 4 rounds."""
    if len(kept.flags) == 1:
        return (yield from selection.compact(kept.flags[0], kept.count, rows))
    heads = yield from parallel(
        *(
            selection.compact(flags, kept.count, [row[head : head + 1] for row in rows])
            for head, flags in enumerate(kept.flags)
        )
    )
    return [cat(parts, 0) for parts in zip(*heads, strict=True)]
