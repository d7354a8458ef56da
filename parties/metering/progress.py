"""The progress of a party in its cell: written by the thread that works, read by the exporter and the driver."""

import time
from collections.abc import Callable, Sequence
from statistics import fmean

from parties.metering.meter import StageMeter
from parties.metering.registry import CELL_STATES

_NUMBER_BYTES = 8  # a share, or a float64 of the engine `plain`


class Progress:
    """Public progress of a party.

    Args:
        meter: Receives the gauges that the exporter serves.
        clock: Seconds from any origin, monotonic.

    Attributes:
        name: One of `CELL_STATES`.
        tokens: New tokens decoded in the current cell.
    """

    def __init__(self, meter: StageMeter, clock: Callable[[], float] = time.perf_counter) -> None:
        self.name, self.tokens = "idle", 0
        self._meter, self._clock = meter, clock
        self._since = clock()
        self._decoding = False
        meter.put("mpcbench_cell_state", CELL_STATES.index(self.name))

    def enter(self, name: str) -> None:
        """Moves on to the next part of the cell."""
        self.name, self._since, self._decoding = name, self._clock(), False
        if name == "loading":
            self.tokens = 0
            for gauge in ("last_token_seconds", "cache_tokens", "cache_bytes", "kept_tokens", "selected_tokens"):
                self._meter.put(f"mpcbench_{gauge}", None)
        self._meter.put("mpcbench_cell_state", CELL_STATES.index(name))

    def prefilled(self, cached: Sequence[int]) -> None:
        """Begins decoding, with so many cached tokens in each layer."""
        self._since, self._decoding = self._clock(), True
        self._meter.put("mpcbench_kept_tokens", fmean(cached))
        self._meter.begin_steps()

    def token(self, cached: Sequence[int], selected: Callable[[int], int], numbers: int) -> None:
        """Counts a decoded token, with the public sizes of the step that made it.

        Args:
            cached: Tokens in the cache of each layer.
            selected: Gives the number of them that a step attends to.
            numbers: Numbers that a layer caches per token.
        """
        now = self._clock()
        self.tokens += 1
        self._meter.end_step()
        self._meter.add("mpcbench_tokens_total")
        self._meter.put("mpcbench_last_token_seconds", now - self._since)
        self._meter.put("mpcbench_cache_tokens", fmean(cached))
        self._meter.put("mpcbench_cache_bytes", sum(cached) * numbers * _NUMBER_BYTES)
        self._meter.put("mpcbench_selected_tokens", fmean(map(selected, cached)))
        self._since = now

    @property
    def token_age(self) -> float | None:
        """Seconds since the last token, or since decoding began; None unless this party decodes tokens now."""
        return self._clock() - self._since if self._decoding else None
