"""Tokenizers in the metadata of GGUF files."""

from pathlib import Path
from typing import Any

import gguf
import pytest
from tokenizers import pre_tokenizers

from parties.errors import ModelError
from parties.messages import Message
from parties.models import Tokenizer, load_tokenizer
from parties.models.gguf_tokenizer import read_chat, read_tokenizer
from parties.models.spm import CONTROL, NORMAL, USER, read_tokenizer_model
from parties.models.words import RULES, WITH_BOS
from tests.helpers.sentencepiece_files import PIECES, add_facts, facts, write_model

TEXT = "the land, and\n\n  the 2024 ünder<|user|>x"
ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())


def byte_level(pre: str, **changes: Any) -> dict[str, Any]:
    tokens = [*ALPHABET, "th", "the", "Ġthe", "<s>", "</s>", "<|user|>"]
    return {
        "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": pre, "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [NORMAL] * (len(tokens) - 3) + [CONTROL, CONTROL, USER],
        "tokenizer.ggml.merges": ["t h", "th e", "Ġ the"],
        "tokenizer.ggml.bos_token_id": len(tokens) - 3, "tokenizer.ggml.eos_token_id": len(tokens) - 2,
        **{f"tokenizer.{key}": value for key, value in changes.items()},
    }  # fmt: skip


def tokenizer(given: dict[str, Any]) -> Tokenizer:
    return Tokenizer(read_tokenizer(given, Path("model.gguf")), 1000)


@pytest.mark.parametrize("pre", RULES)
def test_every_word_rule_gives_back_the_text(pre: str) -> None:
    one = tokenizer(byte_level(pre))
    ids = one.encode(TEXT)
    assert one.decode(ids) == TEXT
    assert (ids[0] == len(ALPHABET) + 3) == (pre in WITH_BOS)
    assert len(ALPHABET) + 5 in ids  # the user-defined token


def test_a_file_overrules_the_default_of_its_kind() -> None:
    alone = tokenizer(byte_level("gpt-2")).encode("the")
    assert alone == [len(ALPHABET) + 1]
    both = tokenizer(byte_level("gpt-2", **{"ggml.add_bos_token": True, "ggml.add_eos_token": True})).encode("the")
    assert both == [len(ALPHABET) + 3, *alone, len(ALPHABET) + 4]
    assert tokenizer(byte_level("llama-bpe", **{"ggml.add_bos_token": False})).encode("the") == alone


@pytest.mark.parametrize(("unigram", "kind"), [(False, "llama"), (True, "t5")])
@pytest.mark.parametrize("prefix", [True, False])
def test_pieces_give_the_tokens_of_sentencepieces_own_file(
    tmp_path: Path, unigram: bool, kind: str, prefix: bool
) -> None:
    path = write_model(tmp_path / "tokenizer.model", model_type=1 if unigram else 2, prefix=prefix)
    ends = {"add_bos_token": not unigram, "add_eos_token": unigram}
    theirs = Tokenizer(read_tokenizer_model(path, ends), 1000)
    ours = tokenizer(facts(**{"ggml.model": kind, "ggml.add_space_prefix": prefix}))
    assert ours.encode(TEXT) == theirs.encode(TEXT)


def test_from_a_file_with_its_chat_template(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "llama")
    given = facts(
        chat_template="{{ bos_token }}{% for m in messages %}<|user|>{{ m.content }}{% endfor %}{{ eos_token }}"
    )
    add_facts(writer, given)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(ModelError, match=r"llama\.embedding_length is missing"):  # a vocabulary without a model
        load_tokenizer(str(tmp_path / "model.gguf"))
    chat = read_chat(given)
    assert chat is not None
    assert chat.render([Message("user", "the")]) == "<s><|user|>the</s>"
    assert read_chat(facts()) is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            facts(**{"ggml.model": "rwkv"}),
            "tokenizer.ggml.model is 'rwkv'; supported: gpt2, llama, t5; use .*tokenizer.json",
        ),
        (facts(**{"ggml.model": ["llama"]}), "tokenizer.ggml.model is .*supported"),
        (byte_level("superbpe"), "tokenizer.ggml.pre, the rule .* is 'superbpe'; supported: gpt-2, .*tokenizer.json"),
        ({key: value for key, value in facts().items() if "scores" not in key}, "scores is missing"),
        (facts(**{"ggml.scores": [0.0]}), "its tokenizer is inconsistent"),
        (byte_level("gpt-2", **{"ggml.merges": ["t x"]}), "its tokenizer is inconsistent"),
        (facts(**{"ggml.bos_token_id": len(PIECES)}), "its tokenizer is inconsistent"),
    ],
)
def test_what_is_not_supported_is_named(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=rf"model\.gguf: .*{message}"):
        read_tokenizer(given, Path("model.gguf"))
