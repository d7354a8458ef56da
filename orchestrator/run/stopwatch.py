"""When something began and ended, so that a step of the machine's clock in between does no harm."""

import time
from datetime import UTC, datetime, timedelta


class Stopwatch:
    """Runs from its creation: it reads the time of day once, and counts on with the monotonic clock."""

    def __init__(self) -> None:
        self._started = datetime.now(UTC)
        self._since = time.monotonic()

    def read(self) -> tuple[datetime, datetime]:
        """The time of day at the start, and that time plus the seconds that passed."""
        return self._started, self._started + timedelta(seconds=time.monotonic() - self._since)
