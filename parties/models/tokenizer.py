"""Tokenizers that one party can send to another."""

from collections.abc import Callable
from itertools import takewhile
from typing import Self

import tokenizers

from parties.errors import ModelError, PromptError
from parties.models.sources import open_source

# Amount of text that `encode_start` reads first, and number of tokens that must follow those that it returns.
_CHARACTERS_PER_TOKEN, _LEAST_CHARACTERS, _SPARE_TOKENS = 8, 4096, 32
_MOST_CHARACTERS = 2**22  # some seconds of work


class Tokenizer:
    """A tokenizer that can be sent as JSON, so that its user never opens the files of the model.

    Args:
        inner: Tokenizer of the library; may have more tokens than the model, such as one for padding.
        vocab: Number of tokens of the model.
    """

    def __init__(self, inner: tokenizers.Tokenizer, vocab: int) -> None:
        # A tokenizer.json may contain the truncation and padding of its training; prompts are not truncated or padded.
        inner.no_truncation()
        inner.no_padding()
        self._inner, self._vocab = inner, vocab

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """Tokens of a text.

        Args:
            text: A whole text, or a part of one.
            special: Whether to add the special tokens of a whole text, such as the leading token of the model's
                training; a part that follows another has none.

        Raises:
            PromptError: The text has a token that is not in the vocabulary of the model.
        """
        return self._known(self._encode(text, special=special))

    def encode_start(self, read: Callable[[int], str], count: int) -> list[int]:
        """The first tokens of a text, exactly as `encode` returns them, from only as much of the text as they need.

        The text is cut at white space, well after the requested tokens, and twice as much text must give the same
        tokens, since text after a cut can only change the words next to it. If there is no white space, more text is
        read, up to a limit, since the tokens of a word may depend on its last letter.

        Args:
            read: Returns the given number of further characters, fewer only at the end of the text.
            count: Number of tokens; fewer are returned if the text has no more.

        Raises:
            PromptError: One of these tokens is not in the vocabulary of the model, or a very long text has no white
                space at which to cut it.
        """
        size, text = max(_CHARACTERS_PER_TOKEN * count, _LEAST_CHARACTERS), ""
        most = max(_MOST_CHARACTERS, 4 * size)
        before: list[int] | None = None
        while size <= most:
            text += read(size - len(text))
            if len(text) < size:
                return self._known(self._encode(text)[:count])
            tokens = self._encode(text[: _last_gap(text)])
            start = tokens[:count] if len(tokens) >= count + _SPARE_TOKENS else None
            if start is not None and start == before:
                return self._known(start)
            size, before = 2 * size, start
        raise PromptError(
            f"the text is too long: its first {len(text):,} characters have no white space to cut it at behind "
            f"{count} tokens; give a text with white space, or a shorter one"
        )

    def encode_cut(self, text: str, at: int) -> tuple[list[int], list[int]]:
        """Tokens of a whole text, split before the first token that extends beyond a position.

        Both parts together are `encode(text)`; encoded separately, each part would get the leading token, or the space
        that some tokenizers put before a text.

        Args:
            text: The text.
            at: Number of characters of the first part.

        Raises:
            PromptError: The text has a token that is not in the vocabulary of the model.
        """
        encoding = self._inner.encode(text)
        tokens = self._known(encoding.ids)
        cut = next((i for i, (_, end) in enumerate(encoding.offsets) if end > at), len(tokens))
        return tokens[:cut], tokens[cut:]

    @property
    def leading(self) -> list[int]:
        """The special tokens that the tokenizer puts before a text, usually one or none."""
        encoding = self._inner.encode("a")
        marked = zip(encoding.ids, encoding.special_tokens_mask, strict=True)
        return [token for token, _ in takewhile(lambda pair: pair[1], marked)]

    def decode(self, ids: list[int]) -> str:
        """The text of tokens, without special tokens."""
        text: str = self._inner.decode(ids)
        return text

    def to_json(self) -> str:
        """The whole tokenizer as JSON."""
        text: str = self._inner.to_str()
        return text

    @classmethod
    def from_json(cls, text: str, vocab: int) -> Self:
        """The inverse of `to_json`.

        Raises:
            ModelError: The text is not a tokenizer.
        """
        try:
            return cls(tokenizers.Tokenizer.from_str(text), vocab)
        except Exception as error:  # the library raises bare Exception
            raise ModelError(f"not a tokenizer: {error}; check that both parties run the same version") from error

    def _encode(self, text: str, *, special: bool = True) -> list[int]:
        # Only batch encoding releases the GIL, so that other threads can respond for the party.
        ids: list[int] = self._inner.encode_batch([text], add_special_tokens=special)[0].ids
        return ids

    def _known(self, tokens: list[int]) -> list[int]:
        if max(tokens, default=0) >= self._vocab:
            raise PromptError(
                f"the text has a token that the tokenizer knows and the model does not (the model knows 0 to "
                f"{self._vocab - 1}); take such marks, as for padding, out of the text"
            )
        return tokens


def _last_gap(text: str) -> int:
    """Position for a cut: before the last white space that follows a word, in the second half of a text; else 0."""
    for at in range(len(text) - 1, len(text) // 2, -1):
        if text[at].isspace() and not text[at - 1].isspace():
            return at
    return 0


def load_tokenizer(source: str) -> Tokenizer:
    """The tokenizer of a model; reads no weights. Models with random weights have one token per byte.

    Raises:
        ModelError: There is no such model, or its tokenizer is missing or damaged.
    """
    model = open_source(source)
    return Tokenizer(model.tokenizer(), model.spec().vocab)
