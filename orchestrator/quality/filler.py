"""Filler text for generated tasks, and the facts hidden in it."""

import random
from collections.abc import Callable, Sequence

_SENTENCES = (
    "The ferry left the harbour a little after nine and nobody on the pier looked up.",
    "Most of the bread was sold by noon, and the rest went to the neighbours.",
    "A path of flat stones leads from the mill to the lower meadow.",
    "In the evening the shutters were closed one after the other.",
    "The clock in the hall had been slow for as long as anyone could remember.",
    "Rain had been promised for the weekend, but the sky stayed clear.",
    "Two boys were throwing pebbles at a tin can beside the road.",
    "The orchard had to be pruned before the first warm days came.",
    "She folded the map twice and put it back into the drawer.",
    "Behind the station there was a small garden that belonged to everyone.",
    "The library closed early on Wednesdays, which he always forgot.",
    "Someone had painted the old gate green again.",
    "The train was full of people who did not want to talk.",
    "From the hill one could see the river bend twice before it met the lake.",
    "They repaired the roof in spring and the floor in autumn.",
    "A dog slept in the doorway of the bakery and would not be moved.",
    "The letter had taken eleven days to cross a country that took one to drive through.",
    "On market days the square smelt of coffee and wet canvas.",
)
_ADJECTIVES = (
    "amber",
    "brisk",
    "calm",
    "dusty",
    "eager",
    "faded",
    "gentle",
    "hollow",
    "idle",
    "jolly",
    "keen",
    "lucid",
)
_NOUNS = (
    "anchor",
    "basket",
    "candle",
    "drum",
    "engine",
    "falcon",
    "garden",
    "hammer",
    "island",
    "jacket",
    "kettle",
    "lantern",
)


def names(draw: random.Random, count: int) -> list[str]:
    """Different names of two words, such as `amber-falcon`."""
    return draw.sample([f"{adjective}-{noun}" for adjective in _ADJECTIVES for noun in _NOUNS], count)


def hidden_in(draw: random.Random, hidden: Sequence[str], fits: Callable[[str], bool]) -> str:
    """The longest text of filler that fits, with sentences hidden at random depths, in order.

    Args:
        draw: Random generator.
        hidden: Sentences that must be in the text.
        fits: Whether a text is still short enough.

    Raises:
        ValueError: Not even the hidden sentences fit.
    """
    order = [draw.random() for _ in hidden]
    depths = sorted(order)

    def text(count: int) -> str:
        filler = (_SENTENCES[(start + i) % len(_SENTENCES)] for i in range(count))
        sentences, waiting = [], list(zip(depths, hidden, strict=True))
        for i, sentence in enumerate(filler):
            while waiting and waiting[0][0] * count <= i:
                sentences.append(waiting.pop(0)[1])
            sentences.append(sentence)
        return " ".join([*sentences, *(words for _, words in waiting)])

    start = draw.randrange(len(_SENTENCES))
    if not fits(text(0)):
        raise ValueError("length: too short for what the task hides in it; ask for a longer one")
    low, high = 0, 1
    while fits(text(high)):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(text(middle)) else (low, middle)
    return text(low)
