"""Vocabularies of SentencePiece, in files of their own."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaTokenizer
from transformers.tokenization_utils_base import generate_merges

from parties.errors import ModelError, PromptError
from parties.models import Tokenizer, load_tokenizer
from parties.models.spm import read_tokenizer_model
from tests.helpers.saved_models import save, tiny_llama
from tests.helpers.sentencepiece_files import PIECES, write_model

VOCAB = {text: place for place, (text, _, _) in enumerate(PIECES)}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("spm") / "tokenizer.model")


@pytest.fixture(scope="module")
def merging(written: Path) -> Tokenizer:
    return Tokenizer(read_tokenizer_model(written, {}), 1000)


def texts_of(tokenizer: Tokenizer, text: str) -> list[str]:
    return [PIECES[token][0] for token in tokenizer.encode(text)]


def test_merges_the_best_pair_first_and_falls_back_to_bytes(merging: Tokenizer) -> None:
    assert texts_of(merging, "the ant") == ["<s>", "▁the", "▁an", "t"]
    assert texts_of(merging, "aß") == ["<s>", "▁a", "<0xC3>", "<0x9F>"]
    assert merging.decode(merging.encode("the ant, 日本")) == "the ant, 日本"


@given(st.text("the ading.,é日\n<|user|>", min_size=1).filter(lambda text: text[0] != " " and "<|user|>" not in text))
def test_agrees_with_transformers(merging: Tokenizer, text: str) -> None:
    merges = generate_merges({text: place for text, place in VOCAB.items() if not text.startswith("<")})
    theirs = LlamaTokenizer(vocab=VOCAB, merges=merges, legacy=True)
    assert merging.encode(text, special=False) == theirs(text, add_special_tokens=False).input_ids


def test_control_tokens_come_only_from_the_tokenizer_and_user_defined_ones_from_the_text(merging: Tokenizer) -> None:
    assert VOCAB["</s>"] not in merging.encode("a</s>")
    assert merging.encode("a</s>", parse_special=True)[-1] == VOCAB["</s>"]
    assert VOCAB["<|user|>"] in merging.encode("a<|user|>")


def test_unigram_takes_the_most_likely_pieces(tmp_path: Path) -> None:
    path = write_model(tmp_path / "tokenizer.model", model_type=1, trimmed=True)
    tokenizer = Tokenizer(read_tokenizer_model(path, {"add_bos_token": False, "add_eos_token": True}), 1000)
    assert texts_of(tokenizer, "  the   land ") == ["▁the", "▁", "l", "and", "</s>"]
    with pytest.raises(PromptError, match=r"special_tokens: true"):
        tokenizer.encode("a secret</s>")


def test_a_folder_without_tokenizer_json(tmp_path: Path) -> None:
    save(tiny_llama(tied=True), tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    write_model(tmp_path / "tokenizer.model", prefix=False)
    added = {str(len(PIECES)): {"content": "<pad>", "special": True}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": added}))
    tokenizer = Tokenizer(read_tokenizer_model(tmp_path / "tokenizer.model", {"added_tokens_decoder": added}), 1000)
    assert texts_of(tokenizer, "the") == ["<s>", "th", "e"]
    assert tokenizer.encode("<pad>", parse_special=True) == [VOCAB["<s>"], len(PIECES)]
    with pytest.raises(PromptError, match="tokenizer knows and the model does not"):
        load_tokenizer(str(tmp_path)).encode("the")  # a model of 96 tokens
    (tmp_path / "tokenizer.model").unlink()
    with pytest.raises(ModelError, match=r"neither tokenizer\.json nor tokenizer\.model; .*save_pretrained"):
        load_tokenizer(str(tmp_path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"IQ== 0\nIg== 1\n", "vocabulary of tiktoken.*tokenizer.json"),
        (b"", "0 pieces"),
        (b"\xff\x00nonsense", "not a file of SentencePiece"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:aa\n", "Git LFS pointer"),
    ],
)
def test_other_files(tmp_path: Path, content: bytes, message: str) -> None:
    save(tiny_llama(tied=True), tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "tokenizer.model").write_bytes(content)
    with pytest.raises(ModelError, match=rf"tokenizer\.model.*{message}"):
        load_tokenizer(str(tmp_path))


def test_truncated_and_of_another_kind(tmp_path: Path) -> None:
    path = write_model(tmp_path / "tokenizer.model", model_type=3)
    with pytest.raises(ModelError, match=r"model type 3; supported: 1 \(unigram\) and 2 \(BPE\)"):
        read_tokenizer_model(path, {})
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ModelError, match="or truncated; fetch it again"):
        read_tokenizer_model(path, {})
