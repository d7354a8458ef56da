"""How far a private run agrees with the same run in the clear."""

import statistics

from torch import Tensor

from parties.roles.reports import CheckReport, SequenceReport


def agreement(errors: Tensor, generated: list[list[int]], expected: list[list[int]], tolerance: float) -> CheckReport:
    """The check of a cell: of each sequence, for as long as its tokens are the same, and of all together.

    Args:
        errors: Largest error of a logit, [sequences, steps].
        generated: Tokens of each sequence, by the private run.
        expected: The same by the plain engine.
        tolerance: Largest error that counts as correct.
    """
    compared = [
        own[: next((step + 1 for step, (a, b) in enumerate(zip(mine, theirs, strict=True)) if a != b), len(own))]
        for own, mine, theirs in zip(errors.tolist(), generated, expected, strict=True)
    ]
    sequences = [
        SequenceReport(
            max_abs_logit_error=max(own),
            median_abs_logit_error=statistics.median(own),
            tokens_match=mine == theirs,
            tokens_compared=len(own),
        )
        for own, mine, theirs in zip(compared, generated, expected, strict=True)
    ]
    every = [error for own in compared for error in own]
    return CheckReport(
        max_abs_logit_error=max(every),
        median_abs_logit_error=statistics.median(every),
        tokens_match=generated == expected,
        tokens_compared=len(every),
        tolerance=tolerance,
        sequences=tuple(sequences) if len(sequences) > 1 else (),
    )
