"""Builds byte-level BPE tokenizers (the kind of GPT-2) from a vocabulary and its merges."""

from collections.abc import Sequence

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

# Pre-tokenizers, which split a text into words before the merges; names as in GGUF's `tokenizer.ggml.pre`.
WORDS = {
    "gpt-2": pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
    "smollm": pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    ),
}


def byte_bpe(
    vocab: Sequence[str], merges: Sequence[tuple[str, str]], words: str, special: Sequence[str] = ()
) -> Tokenizer:
    """A byte-level BPE tokenizer.

    Args:
        vocab: Tokens in the order of their ids, bytes written in GPT-2's printable alphabet.
        merges: Pairs of tokens, highest priority first.
        words: Key in `WORDS`.
        special: Tokens that are matched before a text is split into words, and omitted from decoded texts.
    """
    model = models.BPE(vocab={token: index for index, token in enumerate(vocab)}, merges=list(merges))
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = WORDS[words]
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    return tokenizer


def bytes_only(vocab: int) -> Tokenizer:
    """A tokenizer for a model without one: one byte per token, with ids below `vocab`.

    A vocabulary of fewer than 256 tokens has printable ASCII first; all other bytes share the last id.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet(), key=lambda letter: (ord(letter) > 127, letter))
    # In GPT-2's printable alphabet these are the space and the line feed.
    alphabet = ["Ġ", "Ċ", *(letter for letter in alphabet if letter not in "ĠĊ")]
    letters = alphabet[:vocab] if vocab >= len(alphabet) else [*alphabet[: vocab - 1], "<unk>"]
    tokens = letters + [f"<{index}>" for index in range(len(letters), vocab)]
    unknown = "<unk>" if vocab < len(alphabet) else None
    tokenizer = Tokenizer(
        models.BPE(vocab={token: index for index, token in enumerate(tokens)}, merges=[], unk_token=unknown)
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer
