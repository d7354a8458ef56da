"""Text to tokens and back, in a form that one party can send to another."""

from itertools import takewhile
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

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """Tokens of a text.

        Args:
            text: a whole text, or a part of one.
            special: with the tokens that the tokenizer puts around a whole text, such as the leading one that the model
                was trained with; a part that follows another has none.
        """
        ids: list[int] = self._inner.encode(text, add_special_tokens=special).ids
        return ids

    def encode_cut(self, text: str, at: int) -> tuple[list[int], list[int]]:
        """Tokens of a whole text, cut before the first one that reaches beyond a place.

        Both parts together are `encode(text)`: parts encoded apart would each get the leading token, or the space that
        some tokenizers put before a text.

        Args:
            text: the text.
            at: characters of the first part.
        """
        encoding = self._inner.encode(text)
        cut = next((i for i, (_, end) in enumerate(encoding.offsets) if end > at), len(encoding.ids))
        return encoding.ids[:cut], encoding.ids[cut:]

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
