"""Selection of rows and clusters by secret scores."""

from collections.abc import Sequence

import torch

from parties.decoding.program import Program
from parties.engines.fss.arithmetic import gates
from parties.engines.fss.arithmetic.values import Masked
from parties.engines.fss.programs.base import Programs
from parties.engines.fss.topk import kept_rows, selection
from parties.engines.fss.topk.kept_rows import Kept
from parties.engines.fss.topk.selection import OneHot


class Selections(Programs):
    """Each is a program of `parties.engines.fss.topk`, with the engine's bounds."""

    def keep_top(self, scores: Masked, count: int) -> Program[Kept]:
        """Flags of the kept rows and their number. Rounds: see `selection.shuffled_top_k`."""
        return kept_rows.keep_top(scores, count)

    def kept_from(self, flags: Masked, count: int) -> Program[Kept]:
        """The flags themselves."""
        return kept_rows.kept_from(flags, count)

    def flags(self, kept: Kept, n: int) -> Program[Masked]:  # noqa: ARG002 - the flags have that length
        """The flags, masked. 1 round."""
        return kept_rows.open_flags(kept)

    def compact(self, kept: Kept, rows: Sequence[Masked]) -> Program[list[Masked]]:
        """The kept rows, in order. 4 rounds."""
        return kept_rows.compact(kept, rows)

    def top_clusters(
        self,
        coarse: Masked,
        fine: Masked,
        parents: Sequence[int | None],
        k_coarse: int,
        k_fine: int,
        *,
        fraction_bits: int = 16,
        spare_rounds: bool = False,
    ) -> Program[OneHot]:
        """Masked one-hot rows of the selected clusters. 6 rounds, or 14 by pivots."""
        coarse, fine = (
            gates.truncate(level, fraction_bits).bounded(self._limit("similarity")) for level in (coarse, fine)
        )
        program = selection.top_two_levels(coarse, fine, parents, k_coarse, k_fine, spare_rounds=spare_rounds)
        return (yield from program)

    def pick(self, selected: OneHot, blocks: Masked) -> Program[Masked]:
        """The selected blocks. 1 round."""
        group = torch.arange(selected.rows.shape[0]) // (selected.rows.shape[0] // blocks.shape[0])
        return (yield from gates.open_(selected.fetch(blocks[group])))
