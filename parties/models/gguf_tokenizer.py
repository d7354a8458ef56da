"""The tokenizer and the chat template in the metadata of a GGUF file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from parties.errors import ModelError
from parties.models.byte_bpe import byte_bpe
from parties.models.chat import ChatTemplate
from parties.models.spm import Pieces, add_marks, surround
from parties.models.words import RULES, WITH_BOS

_NEEDED = "use the model's safetensors folder with its tokenizer.json instead"
_KINDS = ("gpt2", "llama", "t5")  # byte-level BPE; BPE and unigram of SentencePiece
_NAMED = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}  # in templates and in GGUF


def read_tokenizer(facts: Mapping[str, Any], path: Path) -> Tokenizer:
    """The tokenizer of a GGUF file.

    Args:
        facts: The file's metadata.
        path: The file, for error messages.

    Raises:
        ModelError: The tokenizer is of a kind that is not supported, incomplete or inconsistent.
    """
    kind, words = facts.get("tokenizer.ggml.model"), facts.get("tokenizer.ggml.pre")
    if kind not in list(_KINDS):  # in a damaged file it may be a list, which is not hashable
        raise ModelError(f"{path}: tokenizer.ggml.model is {kind!r}; supported: {', '.join(_KINDS)}; {_NEEDED}")
    if kind == "gpt2" and words not in RULES:
        raise ModelError(
            f"{path}: tokenizer.ggml.pre, the rule that splits a text into words, is {words!r}; supported: "
            f"{', '.join(RULES)}; {_NEEDED}"
        )
    try:
        return _byte_bpe(facts, str(words)) if kind == "gpt2" else _pieces(facts, unigram=kind == "t5")
    except KeyError as error:
        raise ModelError(f"{path}: {error.args[0]} is missing; the file has no complete tokenizer") from error
    except Exception as error:  # tokenizers raises bare Exception
        raise ModelError(f"{path}: its tokenizer is inconsistent: {error}; fetch the file again") from error


def read_chat(facts: Mapping[str, Any]) -> ChatTemplate | None:
    """The chat template of a GGUF file, if it has one."""
    template, tokens = facts.get("tokenizer.chat_template"), facts.get("tokenizer.ggml.tokens", [])
    if not isinstance(template, str):
        return None
    ids = {name: facts.get(f"tokenizer.ggml.{key}_token_id") for name, key in _NAMED.items()}
    known = {name: tokens[i] for name, i in ids.items() if isinstance(i, int) and i < len(tokens)}
    return ChatTemplate(template, {f"{name}_token": str(token) for name, token in known.items()})


def _byte_bpe(facts: Mapping[str, Any], words: str) -> Tokenizer:
    tokens, kinds = facts["tokenizer.ggml.tokens"], facts["tokenizer.ggml.token_type"]
    pairs = []
    for merge in facts["tokenizer.ggml.merges"]:
        left, right = merge.split(" ")
        pairs.append((left, right))
    tokenizer = byte_bpe(tokens, pairs, words)
    add_marks(tokenizer, tokens, kinds)
    _surround(tokenizer, facts, bos=words in WITH_BOS, eos=False)
    return tokenizer


def _pieces(facts: Mapping[str, Any], *, unigram: bool) -> Tokenizer:
    pieces = Pieces(
        tokens=facts["tokenizer.ggml.tokens"],
        scores=facts["tokenizer.ggml.scores"],
        kinds=facts["tokenizer.ggml.token_type"],
        unigram=unigram,
        prefix=facts.get("tokenizer.ggml.add_space_prefix", True),
        trimmed=facts.get("tokenizer.ggml.remove_extra_whitespaces", False),
        charsmap=bytes(value % 256 for value in facts.get("tokenizer.ggml.precompiled_charsmap", [])),
    )
    tokenizer = pieces.tokenizer()
    _surround(tokenizer, facts, bos=not unigram, eos=unigram)
    return tokenizer


def _surround(tokenizer: Tokenizer, facts: Mapping[str, Any], *, bos: bool, eos: bool) -> None:
    """Puts the first and the last token around a text where the file, or else the default of its kind, wants them."""

    def wanted(name: str, default: bool) -> list[str]:
        if not facts.get(f"tokenizer.ggml.add_{name}_token", default):
            return []
        return [facts["tokenizer.ggml.tokens"][facts[f"tokenizer.ggml.{name}_token_id"]]]

    surround(tokenizer, wanted("bos", bos), wanted("eos", eos))
