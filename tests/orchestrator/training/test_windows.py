"""Texts and settings: drawn windows, and every error by name."""

import hashlib
import math
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers.processors import TemplateProcessing

from orchestrator.training.loop import pace
from orchestrator.training.settings import Settings, TrainingError
from orchestrator.training.windows import Text, draw, read_text
from parties.models import Tokenizer, load_tokenizer
from tests.helpers.small_training import MODEL, settings, write_text

TOKENIZER = load_tokenizer(MODEL)


def numbered(name: str, start: int, count: int) -> Text:
    return Text(name, "", list(range(start, start + count)))


@given(
    sizes=st.lists(st.integers(10, 60), min_size=1, max_size=4),
    length=st.integers(1, 10),
    seed=st.integers(0, 2**40),
    data=st.data(),
)
def test_windows_are_runs_of_a_text_that_do_not_overlap(sizes: list[int], length: int, seed: int, data: Any) -> None:
    texts = [numbered(str(i), 1000 * i, size) for i, size in enumerate(sizes)]
    count = data.draw(st.integers(1, sum(size // length for size in sizes)))
    windows = draw(texts, length, count, seed)
    assert len(windows) == count
    assert windows == draw(texts, length, count, seed)
    tokens = [token for window in windows for token in window]
    assert len(set(tokens)) == len(tokens) == count * length
    for window in windows:
        assert window == list(range(window[0], window[0] + length))
        assert window[0] % 1000 + length <= sizes[window[0] // 1000]


def test_every_window_begins_with_the_leading_token() -> None:
    text = Text("a", "", list(range(25)), (99,))
    assert text.windows(9) == [[99, *range(start, start + 8)] for start in (0, 8, 16)]
    assert sorted(draw([text], 9, 3, seed=1)) == text.windows(9)


def test_each_text_gives_alike_as_far_as_it_goes() -> None:
    texts = [numbered("long", 0, 900), numbered("short", 1000, 20), numbered("other", 2000, 900)]
    starts = [window[0] // 1000 for window in draw(texts, 10, 42, seed=3)]
    assert [starts.count(text) for text in range(3)] == [20, 2, 20]
    assert draw(texts, 10, 42, seed=4) != draw(texts, 10, 42, seed=3)


def test_more_windows_than_there_is_text_are_refused() -> None:
    with pytest.raises(TrainingError, match="windows: 5 windows of 10 tokens, but the texts have 4"):
        draw([numbered("a", 0, 25), numbered("b", 100, 29)], 10, 5, 0)


def test_a_text_is_read_with_its_hash(tmp_path: Path) -> None:
    path = write_text(tmp_path)
    text = read_text(path, TOKENIZER, 32)
    assert text.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert TOKENIZER.decode(text.tokens) == path.read_text()


def test_the_leading_token_is_read_apart_from_the_text(tmp_path: Path) -> None:
    inner = tokenizers.Tokenizer.from_str(TOKENIZER.to_json()["tokenizer"])
    inner.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 5)])
    path = write_text(tmp_path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())  # a byte order mark is not part of the text
    text = read_text(path, Tokenizer(inner, inner.get_vocab_size()), 32)
    assert (text.tokens, text.leading) == (TOKENIZER.encode(path.read_text(encoding="utf-8-sig")), (5,))


def test_files_that_are_not_text_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"text: .*nowhere.txt cannot be read: No such file"):
        read_text(tmp_path / "nowhere.txt", TOKENIZER, 8)
    with pytest.raises(TrainingError, match=r"text: .* cannot be read: Is a directory"):
        read_text(tmp_path, TOKENIZER, 8)
    path = tmp_path / "data.bin"
    path.write_bytes(b"abc\xff\xfe")
    with pytest.raises(TrainingError, match=r"data.bin cannot be read: it is not UTF-8 text"):
        read_text(path, TOKENIZER, 8)


@pytest.mark.parametrize("words", ["", "short"])
def test_an_empty_or_short_text_is_refused_with_its_length(words: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(words)
    with pytest.raises(TrainingError, match=f"a.txt has {len(words)} tokens, a window needs 8"):
        read_text(tmp_path / "a.txt", TOKENIZER, 8)


WRONG: list[dict[str, Any]] = [
    {"width": 0}, {"windows": 0}, {"context": 1}, {"answer": 1}, {"block": 0}, {"repeats": 0}, {"repeats": 1.5},
    {"seed": -1}, {"seed": 2**63}, {"learning_rate": 0.0}, {"learning_rate": math.nan}, {"learning_rate": math.inf},
    {"clip": 0.0}, {"smoothness": -1.0}, {"pressure": math.inf}, {"keep": 0.0}, {"keep": 1.0}, {"keep": math.nan},
]  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_impossible_numbers_are_refused_by_name(wrong: dict[str, Any]) -> None:
    ((name, value),) = wrong.items()
    with pytest.raises(TrainingError) as caught:
        settings(**wrong)
    assert str(caught.value).startswith(f"{name}: {value!r} is not possible; it must be ")


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(TrainingError, match="kind: 'quest' is not possible; it must be one of locret, attention_gate"):
        Settings.of("quest")  # type: ignore[arg-type]


@given(windows=st.integers(1, 60), repeats=st.integers(1, 5))
def test_the_learning_rate_rises_to_one_and_falls_towards_zero(windows: int, repeats: int) -> None:
    chosen = settings(windows=windows, repeats=repeats)
    paces = [pace(chosen, step) for step in range(chosen.steps)]
    top = paces.index(max(paces))
    assert max(paces) == pytest.approx(1, abs=1 / math.ceil(chosen.steps / 10))
    assert paces[: top + 1] == sorted(paces[: top + 1])
    assert paces[top:] == sorted(paces[top:], reverse=True)
    assert all(0 < value <= 1 for value in paces)
