"""Text to tokens and back, in a form that one party can send to another."""

from collections.abc import Callable
from itertools import takewhile
from typing import Self

import tokenizers

from parties.errors import ModelError, PromptError
from parties.models.sources import open_source

# How much text `encode_start` takes at first, and how many tokens must follow those that it returns.
_CHARACTERS_PER_TOKEN, _LEAST_CHARACTERS, _SPARE_TOKENS = 8, 4096, 32
_MOST_CHARACTERS = 2**22  # some seconds of work


class Tokenizer:
    """A tokenizer that travels as JSON, so that its user never opens the model's files.

    Args:
        inner: May know more tokens than the model, such as one that was added for padding.
        vocab: How many tokens the model knows.
    """

    def __init__(self, inner: tokenizers.Tokenizer, vocab: int) -> None:
        # A tokenizer.json may carry the cut-off and the padding of its training; a prompt is neither cut nor padded.
        inner.no_truncation()
        inner.no_padding()
        self._inner, self._vocab = inner, vocab

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """Tokens of a text.

        Args:
            text: A whole text, or a part of one.
            special: With the tokens that the tokenizer puts around a whole text, such as the leading one that the model
                was trained with; a part that follows another has none.

        Raises:
            PromptError: The text has a token that the model does not know.
        """
        return self._known(self._encode(text, special=special))

    def encode_start(self, read: Callable[[int], str], count: int) -> list[int]:
        """The first tokens of a text, exactly as `encode` gives them, from no more of the text than they need.

        The text is cut at white space, well behind the tokens that are asked for, and twice as much of it must give
        the same ones: what stands behind a cut can only change the words around it. Where there is no white space to
        cut at, more is read, up to a limit: how a word is tokenised may depend on its last letter.

        Args:
            read: Gives so many more characters of the text, fewer only at its end.
            count: How many tokens; fewer come of a text that has no more.

        Raises:
            PromptError: One of these tokens is not known to the model, or a very long text has no white space to cut
                it at.
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
        """Tokens of a whole text, cut before the first one that reaches beyond a place.

        Both parts together are `encode(text)`: parts encoded apart would each get the leading token, or the space that
        some tokenizers put before a text.

        Args:
            text: The text.
            at: Characters of the first part.

        Raises:
            PromptError: The text has a token that the model does not know.
        """
        encoding = self._inner.encode(text)
        tokens = self._known(encoding.ids)
        cut = next((i for i, (_, end) in enumerate(encoding.offsets) if end > at), len(tokens))
        return tokens[:cut], tokens[cut:]

    @property
    def leading(self) -> list[int]:
        """The tokens that the tokenizer puts before a text; most put one or none."""
        encoding = self._inner.encode("a")
        marked = zip(encoding.ids, encoding.special_tokens_mask, strict=True)
        return [token for token, _ in takewhile(lambda pair: pair[1], marked)]

    def decode(self, ids: list[int]) -> str:
        """Text of tokens, without the special ones."""
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
        # Of the library's ways to encode only the batch lets other threads run, which must answer for the party.
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
    """Where a text may be cut: before its last white space that follows a word, in its second half; 0 if nowhere."""
    for at in range(len(text) - 1, len(text) // 2, -1):
        if text[at].isspace() and not text[at - 1].isspace():
            return at
    return 0


def load_tokenizer(source: str) -> Tokenizer:
    """The tokenizer of a model; reads no weights. Models of random weights take a byte as a token.

    Raises:
        ModelError: There is no such model, or its tokenizer is missing or damaged.
    """
    model = open_source(source)
    return Tokenizer(model.tokenizer(), model.spec().vocab)
