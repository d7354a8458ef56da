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
        name: Name of the file, without its folder.
        sha256: Hash of its bytes, hexadecimal.
        tokens: Tokens of the whole text, without those that the tokenizer adds.
        leading: Tokens that the tokenizer adds before a text; every window begins with them, as every prompt does.
    """

    name: str
    sha256: str
    tokens: list[int]
    leading: tuple[int, ...] = ()

    def windows(self, length: int) -> list[list[int]]:
        """All windows of a length, without overlap; the length includes the leading tokens."""
        step = length - len(self.leading)
        return [[*self.leading, *self.tokens[i : i + step]] for i in range(0, len(self.tokens) - step + 1, step)]


def read_text(path: Path, tokenizer: Tokenizer, length: int) -> Text:
    """Reads a file of UTF-8 text.

    Args:
        path: The file.
        tokenizer: The tokenizer of the model.
        length: Tokens of a window; the text must have at least one window.

    Raises:
        TrainingError: The file does not exist, is not text, or is too short.
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
            f"text: {path} has {len(text.tokens)} tokens, a window needs {length}; give a longer text or a shorter "
            "window"
        )
    return text


def draw(texts: Sequence[Text], length: int, count: int, seed: int) -> list[list[int]]:
    """Draws windows without overlap in random order, the same number from each text as far as it has enough.

    Args:
        texts: The texts.
        length: Tokens of a window.
        count: Number of windows.
        seed: Seed of the draw.

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
            f"windows: {count} windows of {length} tokens, but the texts have {len(found)}; use fewer or shorter ones, "
            "or give more text"
        )
    return [found[i] for i in torch.randperm(count, generator=generator).tolist()]
