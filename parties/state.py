"""Where a party stands in its cell: written by the thread that works, read by the one that watches."""

from dataclasses import dataclass


@dataclass
class State:
    """Public progress of a party."""

    name: str = "idle"
    tokens: int = 0
    cached_tokens: int = 0

    def enter(self, name: str) -> None:
        """Moves on to the next part of the cell."""
        self.name = name
        if name == "loading":
            self.tokens = self.cached_tokens = 0

    def token(self, cached_tokens: int) -> None:
        """Counts a decoded token."""
        self.tokens += 1
        self.cached_tokens = cached_tokens
