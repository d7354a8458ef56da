"""Memory that grows by pieces, which stay where they are: recordings hold their addresses."""

from collections.abc import Callable

from torch import Tensor

from parties.engines.fss.randomness.frames import in_words
from parties.engines.keystream import SPARE_BYTES


class Pieces:
    """Room for one kind of randomness of a segment: as many pieces as the segment that takes most of it needs.

    Args:
        make: Returns memory of so many bytes, uint8.
        least: Bytes of a piece, of which SPARE_BYTES are not taken; a larger tensor gets a piece of its size.

    Attributes:
        made: The pieces.
    """

    def __init__(self, make: Callable[[int], Tensor], least: int) -> None:
        self._make, self._least = make, least
        self.made: list[Tensor] = []

    def take(self, taken: list[int], size: int) -> Tensor:
        """Returns the next bytes, in whole words.

        Args:
            taken: What a segment takes of each piece, in bytes; it grows.
            size: So many bytes.
        """
        words = in_words(size)
        if not taken:
            taken.append(0)
        while taken[-1] + words > self._room(len(taken) - 1, words):
            taken.append(0)
        start = taken[-1]
        taken[-1] += words
        return self.made[len(taken) - 1][start : start + size]

    def _room(self, index: int, wanted: int) -> int:
        if index == len(self.made):
            self.made.append(self._make(max(self._least, wanted + SPARE_BYTES)))
        return self.made[index].numel() - SPARE_BYTES
