"""The numbers that people who serve models read: TTFT, TPOT, ITL, tokens per second, acceptance.

All of them follow from the wall times of the private passes. A pass yields one new token of each sequence, and with
drafts as many as were right and one more; the tokens of a pass arrive together.
"""

from collections.abc import Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class TokenTimes(BaseModel):
    """The numbers of one cell on one party's clock, online and offline work together."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ttft_seconds: Seconds = Field(
        description="Time to first token: the first pass, and the prompt before it if client and server ran that."
    )
    tpot_seconds: Seconds = Field(
        description="Time per output token: decode time over the new tokens of a sequence, the first one included."
    )
    itl_p50_seconds: Seconds | None = Field(
        default=None, description="Inter-token latency, median: from one pass to the next; None with a single pass."
    )
    itl_p90_seconds: Seconds | None = Field(default=None, description="The same, 90th percentile.")
    itl_p99_seconds: Seconds | None = Field(default=None, description="The same, 99th percentile.")
    tokens_per_second: Seconds = Field(description="New tokens of all sequences over decode time.")
    acceptance: Annotated[float, Field(ge=0, le=1)] | None = Field(
        default=None, description="Share of the drafted tokens that were right; None without drafts."
    )


def token_times(
    pass_seconds: Sequence[float],
    *,
    tokens: int,
    sequences: int = 1,
    prompt_seconds: float = 0.0,
    drafted: int = 0,
    accepted: int = 0,
) -> TokenTimes | None:
    """The numbers of a cell; None before its first pass.

    Args:
        pass_seconds: Wall seconds of each pass, in order.
        tokens: New tokens of each sequence.
        sequences: Sequences that decode side by side.
        prompt_seconds: Wall seconds of a prompt that client and server ran themselves.
        drafted: Tokens that were proposed.
        accepted: Those of them that were right.
    """
    decode = sum(pass_seconds)
    if not decode or not tokens:
        return None
    gaps = pass_seconds[1:]
    p50, p90, p99 = (percentile(gaps, share) for share in (0.5, 0.9, 0.99))
    return TokenTimes(
        ttft_seconds=prompt_seconds + pass_seconds[0],
        tpot_seconds=decode / tokens,
        itl_p50_seconds=p50,
        itl_p90_seconds=p90,
        itl_p99_seconds=p99,
        tokens_per_second=tokens * sequences / decode,
        acceptance=accepted / drafted if drafted else None,
    )


def percentile(values: Sequence[float], share: float) -> float | None:
    """The value below which a share of the values lies, between two of them by linear interpolation; None of none."""
    if not values:
        return None
    ordered, at = sorted(values), share * (len(values) - 1)
    low, high = ordered[int(at)], ordered[min(int(at) + 1, len(values) - 1)]
    return low + (high - low) * (at - int(at))
