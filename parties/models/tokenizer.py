"""Text to tokens and back, in a form that one party can send to another."""

from typing import Self

import tokenizers

from parties.errors import ModelError
from parties.models.sources import open_source


class Tokenizer:
    """A tokenizer that travels as JSON, so that its user never opens the model's files."""

    def __init__(self, inner: tokenizers.Tokenizer) -> None:
        # A tokenizer.json may carry the cut-off and the padding of its training; a prompt is neither cut nor padded.
        inner.no_truncation()
        inner.no_padding()
        self._inner = inner

    def encode(self, text: str) -> list[int]:
        """Tokens of a text, with the leading token that the model was trained with, if any."""
        ids: list[int] = self._inner.encode(text).ids
        return ids

    def decode(self, ids: list[int]) -> str:
        """Text of tokens, without the special ones."""
        text: str = self._inner.decode(ids)
        return text

    def to_json(self) -> str:
        """The whole tokenizer as JSON."""
        text: str = self._inner.to_str()
        return text

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The inverse of `to_json`.

        Raises:
            ModelError: the text is not a tokenizer.
        """
        try:
            return cls(tokenizers.Tokenizer.from_str(text))
        except Exception as error:  # the library raises bare Exception
            raise ModelError(f"not a tokenizer: {error}; check that both parties run the same version") from error


def load_tokenizer(source: str) -> Tokenizer:
    """The tokenizer of a model; reads no weights. Models of random weights take a byte as a token.

    Raises:
        ModelError: there is no such model, its tokenizer is missing or damaged, or it does not fit the model.
    """
    model = open_source(source)
    inner, vocab = model.tokenizer(), model.spec().vocab
    largest = max(inner.get_vocab().values(), default=0)
    if largest >= vocab:
        raise ModelError(
            f"the tokenizer of {source} has a token {largest}, the model only knows 0 to {vocab - 1}; "
            f"fetch tokenizer and model together"
        )
    return Tokenizer(inner)
