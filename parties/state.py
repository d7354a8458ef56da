"""Where a party stands in its cell: written by the thread that works, read by those that watch."""

import time
from collections.abc import Callable

from parties.metrics import CELL_STATES


class State:
    """Public progress of a party.

    Args:
        publish: called with the name of a metric and its new value.

    Attributes:
        name: one of `CELL_STATES`.
        tokens: new tokens decoded in the current cell.
    """

    def __init__(self, publish: Callable[[str, float], None]) -> None:
        self.name, self.tokens = "idle", 0
        self._publish = publish
        self._since = time.perf_counter()

    def enter(self, name: str) -> None:
        """Moves on to the next part of the cell."""
        self.name = name
        if name == "loading":
            self.tokens = 0
        self._since = time.perf_counter()
        self._publish("mpcbench_cell_state", CELL_STATES.index(name))

    def token(self, cached: int, attended: int) -> None:
        """Counts a decoded token, with the public sizes of the step that made it."""
        now = time.perf_counter()
        self.tokens += 1
        self._publish("mpcbench_tokens_total", self.tokens)
        self._publish("mpcbench_last_token_seconds", now - self._since)
        self._publish("mpcbench_cache_tokens", cached)
        self._publish("mpcbench_selected_tokens", attended)
        self._since = now
