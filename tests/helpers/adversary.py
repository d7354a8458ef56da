"""A drafter that is wrong where a test wants it."""

from collections.abc import Sequence

from parties.decoding.drafts import Drafter

ALL = -1
"""Every place of a draft."""


class Adversary(Drafter):
    """Drafts the right tokens, but for those at one place of the draft, or at all of them."""

    def __init__(self, right: Sequence[int], wrong: int | None) -> None:
        self.right, self.wrong, self.begun = right, wrong, 0

    def draft(self, text: Sequence[int], count: int) -> list[int]:
        self.begun = self.begun or len(text)
        found = [*self.right[len(text) - self.begun :], *[0] * count][:count]
        return [(token + 1) % 128 if self.wrong in (place, ALL) else token for place, token in enumerate(found)]
