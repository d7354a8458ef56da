"""The progress of a party in its cell: written by the thread that works, read by the exporter and the driver."""

import time
from collections.abc import Callable, Sequence
from statistics import fmean

from parties.metering.meter import StageMeter
from parties.metering.registry import CELL_STATES
from parties.metering.stages import RECORDING
from parties.metering.token_times import TokenTimes, token_times

_GAUGES = (
    *("last_token_seconds", "tokens_per_second", "acceptance_ratio"),
    *("cache_tokens", "cache_bytes", "kept_tokens", "selected_tokens"),
)
_NUMBER_BYTES = 8  # a share, or a float64 of the engine `plain`


class Progress:
    """Public progress of a party.

    Args:
        meter: Receives the gauges that the exporter serves.
        clock: Seconds from any origin, monotonic.

    Attributes:
        name: One of `CELL_STATES`.
        tokens: New tokens of each sequence, decoded in the current cell.
        prompt_seconds: Wall seconds of the cell's prompt, if client and server run it themselves.
        pass_seconds: Wall seconds of each decoding step of the cell; see `parties.metering.token_times`.
        recording_seconds: The part of each that recording segments took.
        times: The numbers that follow from them; None before the first token.
    """

    def __init__(self, meter: StageMeter, clock: Callable[[], float] = time.perf_counter) -> None:
        self.name = "idle"
        self._meter, self._clock = meter, clock
        self._since = clock()
        self._decoding = False
        self._begin()
        meter.put("mpcbench_cell_state", CELL_STATES.index(self.name))

    def enter(self, name: str) -> None:
        """Moves on to the next part of the cell."""
        if self._decoding and self.times is not None:
            self._meter.observe("mpcbench_tpot_seconds", self.times.tpot_seconds)
        self.name, self._since, self._decoding = name, self._clock(), False
        if name == "loading":
            self._begin()
        self._meter.put("mpcbench_cell_state", CELL_STATES.index(name))

    def _begin(self) -> None:
        """A new cell: nothing is known of its tokens."""
        self.tokens = self._drafted = self._accepted = 0
        self.prompt_seconds = 0.0
        self.pass_seconds: list[float] = []
        self.recording_seconds: list[float] = []
        self.times: TokenTimes | None = None
        for gauge in _GAUGES:
            self._meter.put(f"mpcbench_{gauge}", None)

    def prefilled(self, cached: Sequence[int]) -> None:
        """Begins decoding, with so many cached tokens in each layer."""
        self._since, self._decoding = self._clock(), True
        self._meter.put("mpcbench_kept_tokens", fmean(cached))
        self._recorded = self._meter.seconds(RECORDING)
        self._meter.begin_steps()

    def token(
        self,
        cached: Sequence[int],
        selected: Callable[[int], int],
        numbers: int,
        *,
        tokens: int = 1,
        sequences: int = 1,
        drafted: int = 0,
        accepted: int = 0,
    ) -> None:
        """Counts the decoded tokens of a step, with its public sizes.

        Args:
            cached: Tokens in the cache of each layer.
            selected: Gives the number of them that a step attends to.
            numbers: Numbers that a layer caches per token.
            tokens: New tokens of each sequence.
            sequences: Sequences that decode side by side.
            drafted: Tokens that were proposed for the step.
            accepted: Those of them that were right.
        """
        now = self._clock()
        self.tokens += tokens
        self._drafted, self._accepted = self._drafted + drafted, self._accepted + accepted
        self._meter.end_step()
        self._meter.add("mpcbench_tokens_total", tokens * sequences)
        recorded = self._meter.seconds(RECORDING)
        self.recording_seconds.append(recorded - self._recorded)
        self._recorded = recorded
        self._took(now - self._since, sequences)
        self._meter.put("mpcbench_cache_tokens", fmean(cached))
        self._meter.put("mpcbench_cache_bytes", sum(cached) * numbers * _NUMBER_BYTES)
        self._meter.put("mpcbench_selected_tokens", fmean(map(selected, cached)))
        self._since = now

    def _took(self, seconds: float, sequences: int) -> None:
        """Counts the wall time of a step."""
        self.pass_seconds.append(seconds)
        self.times = token_times(
            self.pass_seconds,
            tokens=self.tokens,
            sequences=sequences,
            prompt_seconds=self.prompt_seconds,
            drafted=self._drafted,
            accepted=self._accepted,
        )
        self._meter.put("mpcbench_last_token_seconds", seconds)
        if self.times is None:
            return
        if len(self.pass_seconds) == 1:
            self._meter.observe("mpcbench_ttft_seconds", self.times.ttft_seconds)
        else:
            self._meter.observe("mpcbench_itl_seconds", seconds)
        self._meter.put("mpcbench_tokens_per_second", self.times.tokens_per_second)
        self._meter.put("mpcbench_acceptance_ratio", self.times.acceptance)

    @property
    def token_age(self) -> float | None:
        """Seconds since the last token, or since decoding began; None unless this party decodes tokens now."""
        return self._clock() - self._since if self._decoding else None
