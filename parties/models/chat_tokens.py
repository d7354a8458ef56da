"""Tokens of a chat, which can be shortened without losing the marks around its messages."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import tokenizers
from tokenizers import AddedToken

from parties.errors import PromptError
from parties.messages import Message
from parties.models.chat import ChatTemplate

_PRIVATE = range(0x10_0000, 0x10_FFFE)  # code points without a meaning, Unicode's last private area


@dataclass(frozen=True)
class ChatTokens:
    """The tokens of a chat, up to where the model's answer begins.

    Attributes:
        tokens: All of them.
        start: Position of the first token of the last message's text.
        stop: Position behind its last token; what follows are the marks that end it and begin the answer. Equal to
            `start` if the template does not repeat the text word for word.
    """

    tokens: list[int]
    start: int
    stop: int

    def cut(self, count: int) -> list[int]:
        """The chat in a given number of tokens: the end of the last message's text is left out.

        Raises:
            PromptError: The chat has too few tokens, or too many besides that text.
        """
        excess = len(self.tokens) - count
        if excess < 0:
            raise PromptError(
                f"the chat has {len(self.tokens)} tokens, seq_len asks for {count}; lengthen its last message, or set "
                f"seq_lens to {len(self.tokens)} at most"
            )
        if excess == 0:
            return self.tokens
        least = len(self.tokens) - (self.stop - self.start) + 1
        if count < least:
            length = f"{least} to {len(self.tokens)}" if self.stop > self.start else str(len(self.tokens))
            raise PromptError(
                f"the chat has {len(self.tokens)} tokens, seq_len asks for {count}, and only the end of its last "
                f"message can be left out; set seq_lens to {length}"
            )
        return self.tokens[: self.stop - excess] + self.tokens[self.stop :]


def encode_chat(
    tokenizer: tokenizers.Tokenizer,
    template: ChatTemplate,
    messages: Sequence[Message],
    as_text: Callable[[str], list[int]] | None,
) -> ChatTokens:
    """Applies a chat template and tokenises the result.

    A special token in a message would end it, or speak in another role. It is replaced by a code point without a
    meaning while the template is applied, and then by the tokens of its letters.

    Args:
        tokenizer: The tokenizer; must read special tokens as such.
        template: The chat template.
        messages: The chat, at least one message.
        as_text: Returns the tokens of a special token's letters; None to read special tokens in messages as such.

    Raises:
        PromptError: The template refuses the messages.
    """
    hidden = {} if as_text is None else _hidden(tokenizer, messages)
    masked = [Message(*(_replace(part, hidden) for part in message)) for message in messages]
    text, last = template.render(masked), masked[-1].content.strip()
    if hidden:
        tokenizer = tokenizers.Tokenizer.from_str(tokenizer.to_str())
        tokenizer.add_tokens([AddedToken(letter, normalized=False) for letter in hidden.values()])
    encoding = tokenizer.encode_batch([text], add_special_tokens=False)[0]
    shown = {tokenizer.token_to_id(letter): as_text(mark) for mark, letter in hidden.items()} if as_text else {}
    pieces = [shown.get(token, [token]) for token in encoding.ids]
    at = text.rfind(last)
    ends = [end for _, end in encoding.offsets]
    start, stop = (_length(pieces, ends, place) for place in ((at, at + len(last)) if at >= 0 else (0, 0)))
    return ChatTokens([token for piece in pieces for token in piece], start, stop)


def _hidden(tokenizer: tokenizers.Tokenizer, messages: Sequence[Message]) -> dict[str, str]:
    """An unused letter for each special token in the messages; longer tokens first, since they may contain others."""
    text = "".join(part for message in messages for part in message)
    marks = {token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special}
    unused = (chr(code) for code in _PRIVATE if chr(code) not in text)
    return {mark: next(unused) for mark in sorted(marks, key=len, reverse=True) if mark in text}


def _replace(text: str, letters: dict[str, str]) -> str:
    for mark, letter in letters.items():
        text = text.replace(mark, letter)
    return text


def _length(pieces: Sequence[Sequence[int]], ends: Sequence[int], place: int) -> int:
    """The number of tokens that end at or before a position of the text."""
    return sum(len(piece) for piece, end in zip(pieces, ends, strict=True) if end <= place)
