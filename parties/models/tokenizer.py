"""Tokenizers that one party can send to another."""

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile
from typing import Any, Self

import tokenizers

from parties.errors import ModelError, PromptError
from parties.messages import Message
from parties.models.chat import NO_TEMPLATE, ChatTemplate
from parties.models.chat_tokens import ChatTokens, encode_chat
from parties.models.sources import open_source

# Amount of text that `encode_start` reads first, and number of tokens that must follow those that it returns.
_CHARACTERS_PER_TOKEN, _LEAST_CHARACTERS, _SPARE_TOKENS = 8, 4096, 32
_MOST_CHARACTERS = 2**22  # some seconds of work


class Tokenizer:
    """A tokenizer that can be sent as JSON, so that its user never opens the files of the model.

    The letters of a special token in a text, such as `<|im_end|>`, are a text like any other, unless the caller asks
    for the token.

    Args:
        inner: Tokenizer of the library; may have more tokens than the model, such as one for padding.
        vocab: Number of tokens of the model.
        chat: Chat template of the model, if it has one.
    """

    def __init__(self, inner: tokenizers.Tokenizer, vocab: int, chat: ChatTemplate | None = None) -> None:
        # A tokenizer.json may contain the truncation and padding of its training; prompts are not truncated or padded.
        inner.no_truncation()
        inner.no_padding()
        self._inner, self._vocab, self._chat = inner, vocab, chat
        self._special = [token.content for token in inner.get_added_tokens_decoder().values() if token.special]

    def encode(self, text: str, *, special: bool = True, parse_special: bool = False) -> list[int]:
        """Tokens of a text.

        Args:
            text: A whole text, or a part of one.
            special: Whether to add the special tokens of a whole text, such as the leading token of the model's
                training; a part that follows another has none.
            parse_special: Whether the letters of a special token in the text are that token.

        Raises:
            PromptError: The text has a token that is not in the vocabulary of the model.
        """
        return self._known(self._encode(text, special=special, parse_special=parse_special))

    def encode_chat(self, messages: Sequence[Message], *, parse_special: bool = False) -> ChatTokens:
        """Tokens of a chat by the model's own template, up to where its answer begins.

        Args:
            messages: The chat, at least one message.
            parse_special: Whether the letters of a special token in a message are that token.

        Raises:
            PromptError: The model has no chat template, or it refuses the messages, or they have a token that is not in
                the vocabulary of the model.
        """
        if self._chat is None:
            raise PromptError(NO_TEMPLATE)
        self._inner.encode_special_tokens = False
        as_text = None if parse_special else (lambda mark: self._encode(mark, special=False))
        chat = encode_chat(self._inner, self._chat, messages, as_text)
        self._known(chat.tokens)
        return chat

    def encode_start(self, read: Callable[[int], str], count: int, *, parse_special: bool = False) -> list[int]:
        """The first tokens of a text, exactly as `encode` returns them, from only as much of the text as they need.

        The text is cut at white space or, where a script has none, before punctuation, well after the requested
        tokens, and twice as much text must give the same tokens, since text after a cut can only change the words next
        to it. If there is neither, more text is read, up to a limit, since the tokens of a word may depend on its last
        letter.

        Args:
            read: Returns the given number of further characters, fewer only at the end of the text.
            count: Number of tokens; fewer are returned if the text has no more.
            parse_special: As for `encode`.

        Raises:
            PromptError: One of these tokens is not in the vocabulary of the model, or a very long text has neither
                white space nor punctuation at which to cut it.
        """
        size, text = max(_CHARACTERS_PER_TOKEN * count, _LEAST_CHARACTERS), ""
        most = max(_MOST_CHARACTERS, 4 * size)
        before: list[int] | None = None
        while size <= most:
            text += read(size - len(text))
            if len(text) < size:
                return self._known(self._encode(text, parse_special=parse_special)[:count])
            tokens = self._encode(text[: _last_gap(text)], parse_special=parse_special)
            start = tokens[:count] if len(tokens) >= count + _SPARE_TOKENS else None
            if start is not None and start == before:
                return self._known(start)
            size, before = 2 * size, start
        raise PromptError(
            f"the text is too long: its first {len(text):,} characters have neither white space nor punctuation to "
            f"cut it at behind {count} tokens; give a text with white space, or a shorter one"
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
        self._inner.encode_special_tokens = True
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

    def to_json(self) -> dict[str, Any]:
        """The whole tokenizer, for another party."""
        return {"tokenizer": self._inner.to_str(), "chat": self._chat and self._chat.to_json()}

    @classmethod
    def from_json(cls, card: Mapping[str, Any], vocab: int) -> Self:
        """The inverse of `to_json`.

        Raises:
            ModelError: The values are not a tokenizer.
        """
        try:
            chat = card["chat"] and ChatTemplate(**card["chat"])
            return cls(tokenizers.Tokenizer.from_str(card["tokenizer"]), vocab, chat)
        except Exception as error:  # the library raises bare Exception
            raise ModelError(f"not a tokenizer: {error}; check that both parties run the same version") from error

    def _encode(self, text: str, *, special: bool = True, parse_special: bool = False) -> list[int]:
        # A unigram model has no merges that a special token would need, so it makes one of its letters.
        unigram = isinstance(self._inner.model, tokenizers.models.Unigram)
        if unigram and not parse_special and any(mark in text for mark in self._special):
            raise PromptError(
                "the text has the letters of a special token, which the model's tokenizer (unigram) cannot read as a "
                "text; take them out, or set special_tokens: true"
            )
        self._inner.encode_special_tokens = not parse_special
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
    """Position for a cut in the second half of a text: before its last white space, or punctuation, after a word."""
    return _last(text, str.isspace) or _last(text, lambda letter: unicodedata.category(letter).startswith("P"))


def _last(text: str, gap: Callable[[str], bool]) -> int:
    """Position of the last letter that is a gap and follows one that is not, in the second half of a text; else 0."""
    for at in range(len(text) - 1, len(text) // 2, -1):
        if gap(text[at]) and not gap(text[at - 1]):
            return at
    return 0


def load_tokenizer(source: str) -> Tokenizer:
    """The tokenizer of a model; reads no weights. Models with random weights have one token per byte.

    Raises:
        ModelError: There is no such model, or its tokenizer is missing or damaged.
    """
    model = open_source(source)
    return Tokenizer(model.tokenizer(), model.spec().vocab, model.chat())
