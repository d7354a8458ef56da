"""Texts as windows of tokens."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import torch

from orchestrator.training.settings import TrainingError
from parties.errors import PromptError
from parties.models import Tokenizer
from parties.text_file import Unreadable, shown
from parties.text_file import read_text as read_text_file


@dataclass(frozen=True)
class Text:
    """A text and the hash of the file that it was read from.

    Attributes:
        name: Of the file, without its folder.
        sha256: Of its bytes, hexadecimal.
        tokens: The whole text, without the tokens that a tokenizer puts around it.
        leading: What the tokenizer puts before a text; every window begins with it, as every prompt does.
    """

    name: str
    sha256: str
    tokens: list[int]
    leading: tuple[int, ...] = ()

    def windows(self, length: int) -> list[list[int]]:
        """All windows of some length that do not overlap, the leading token counted in."""
        step = length - len(self.leading)
        return [[*self.leading, *self.tokens[i : i + step]] for i in range(0, len(self.tokens) - step + 1, step)]


def read_text(path: Path, tokenizer: Tokenizer, length: int) -> Text:
    """Reads a file of UTF-8 text.

    Args:
        path: The file.
        tokenizer: The model's.
        length: Tokens of a window, which the text has to fill at least once.

    Raises:
        TrainingError: There is no such file, it is no text, or too short.
    """
    try:
        words = read_text_file(path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        text = Text(path.name, digest, tokenizer.encode(words, special=False), tuple(tokenizer.leading))
    except (Unreadable, OSError) as error:
        raise TrainingError(f"text: {shown(path)} cannot be read: {error}; name a file of UTF-8 text") from None
    except PromptError as error:
        raise TrainingError(f"text: {path}: {error}") from None
    if not text.windows(length):
        raise TrainingError(
            f"text: {path} has {len(text.tokens)} tokens, a window takes {length}; give a longer text or a shorter "
            "window"
        )
    return text


def draw(texts: Sequence[Text], length: int, count: int, seed: int) -> list[list[int]]:
    """Windows that do not overlap, from each text alike as far as it goes, in random order.

    Args:
        texts: Where from.
        length: Tokens of a window.
        count: How many windows.
        seed: Of the draw.

    Raises:
        TrainingError: The texts have fewer windows.
    """
    generator = torch.Generator().manual_seed(seed)
    by_text = []
    for text in texts:
        windows = text.windows(length)
        by_text.append([windows[i] for i in torch.randperm(len(windows), generator=generator).tolist()])
    found = [window for turn in zip_longest(*by_text) for window in turn if window is not None]
    if len(found) < count:
        raise TrainingError(
            f"windows: {count} of {length} tokens are more than the texts hold, {len(found)}; ask for fewer, for "
            "shorter ones, or give more text"
        )
    return [found[i] for i in torch.randperm(count, generator=generator).tolist()]
