"""Builds byte-level BPE tokenizers (the kind of GPT-2) from a vocabulary and its merges."""

from collections.abc import Sequence

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from parties.models.words import COMPOSED, WHOLE_WORDS, word_rule


def byte_bpe(vocab: Sequence[str], merges: Sequence[tuple[str, str]], words: str) -> Tokenizer:
    """A byte-level BPE tokenizer.

    Args:
        vocab: Tokens in the order of their ids, bytes written in GPT-2's printable alphabet.
        merges: Pairs of tokens, highest priority first.
        words: Rule that splits a text into words, one of `parties.models.words.RULES`.
    """
    ids = {token: index for index, token in enumerate(vocab)}
    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=list(merges), ignore_merges=words in WHOLE_WORDS))
    tokenizer.pre_tokenizer = word_rule(words)
    if words in COMPOSED:
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.decoder = decoders.ByteLevel()
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
