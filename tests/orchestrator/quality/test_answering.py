"""A prompt is tokenised as one text, and an answer ends where the text ends."""

import json
from collections.abc import Sequence

import pytest
import tokenizers
import torch
from tokenizers.pre_tokenizers import Metaspace
from tokenizers.processors import TemplateProcessing
from torch import Tensor

from orchestrator.quality.answering import Sample, answer, split_sample
from orchestrator.quality.metrics import f1
from parties.models import Tokenizer, load_tokenizer

BYTES = load_tokenizer("random:llama?layers=1&hidden=16&heads=2&kv_heads=1&intermediate=16&vocab=256")
BOS, EOS = 254, 255


def marked(single: str) -> Tokenizer:
    """The bytes, and a template that puts tokens around a text."""
    inner = tokenizers.Tokenizer.from_str(BYTES.to_json()["tokenizer"])
    inner.post_processor = TemplateProcessing(single=single, special_tokens=[("<s>", BOS), ("</s>", EOS)])
    return Tokenizer(inner, inner.get_vocab_size())


def sample(context: str, question: str, stop: str = "") -> Sample:
    return Sample(context, question, ("x",), f1, 3, stop)


@pytest.mark.parametrize("question", ["visible", "hidden"])
@pytest.mark.parametrize("template", ["<s> $A", "<s> $A </s>", "$A"])
def test_the_prompt_is_one_text_with_one_leading_token(template: str, question: str) -> None:
    tokenizer = marked(template)
    cut = split_sample(tokenizer, sample("The key is 7.", "\nWhat?"), question)  # type: ignore[arg-type]
    assert [*cut.before, *cut.after] == tokenizer.encode("The key is 7.\nWhat?")
    if question == "hidden":
        assert [*cut.before] == [*tokenizer.leading, *BYTES.encode("The key is 7.")]
        assert BYTES.encode("\nWhat?") == [token for token in cut.after if token != EOS]
    else:
        assert len(cut.after) == 1


def test_no_space_is_added_before_a_question() -> None:
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel({"▁a": 0, "▁b": 1, "?": 2, "▁": 3, "▁?": 4}, "▁"))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [tokenizers.pre_tokenizers.Split("?", "isolated"), Metaspace(prepend_scheme="first")]
    )
    cut = split_sample(Tokenizer(inner, inner.get_vocab_size()), sample("a b", "?"), "hidden")
    assert (cut.before, cut.after) == ((0, 1), (2,))


def test_a_token_that_reaches_into_the_question_is_not_compressed() -> None:
    inner = tokenizers.Tokenizer.from_str(
        json.dumps(
            json.loads(BYTES.to_json()["tokenizer"])
            | {"model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]]}}
        )
    )
    cut = split_sample(Tokenizer(inner, inner.get_vocab_size()), sample("ba", "bb"), "hidden")
    assert (cut.before, cut.after) == ((1,), (2, 1))


@pytest.mark.parametrize(
    ("most", "before", "after"),
    [
        (None, "0123456789", "abcd"),
        (14, "0123456789", "abcd"),
        (12, "01234589", "abcd"),
        (13, "01234589", "abcd"),
        (6, "012", "bcd"),
    ],
)
def test_of_a_prompt_that_is_too_long_the_middle_is_left_out(most: int | None, before: str, after: str) -> None:
    hidden = split_sample(BYTES, sample("0123456789", "abcd"), "hidden", most)
    assert (BYTES.decode(list(hidden.before)), BYTES.decode(list(hidden.after))) == (before, after)
    visible = split_sample(BYTES, sample("0123456789", "abcd"), "visible", most)
    assert visible.before + visible.after == hidden.before + hidden.after


def test_the_leading_token_survives_a_cut() -> None:
    cut = split_sample(marked("<s> $A"), sample("0123456789", "abcd"), "hidden", 8)
    assert cut.before == (BOS, *BYTES.encode("012"))
    assert cut.after == tuple(BYTES.encode("abcd"))


def generated(text: Sequence[int], stop: str = "", ends: Sequence[int] = ()) -> list[int]:
    """The scored answer of a model that generates a text, token by token."""
    scored: list[str] = []
    turns = iter(text)

    def step(token: int) -> Tensor:
        logits = torch.zeros(256)
        logits[65] = 0.5  # the second choice
        logits[next(turns)] = 1
        return logits

    def metric(found: str, _: Sequence[str]) -> float:
        scored.append(found)
        return 1.0

    asked_for = Sample("", "", (), metric, 4, stop)
    assert answer(step, [0], asked_for, BYTES, ends) == 1
    return BYTES.encode(scored[0])


def test_an_answer_ends_with_the_text_or_at_its_length() -> None:
    assert generated([10, 20, 30, 40, 50]) == [10, 20, 30, 40]
    assert generated([10, 20, 99, 40, 50], ends=(98, 99)) == [10, 20]
    assert generated([99], ends=(98, 99)) == []


def test_a_token_that_ends_an_answer_cannot_begin_it() -> None:
    (line,) = BYTES.encode("\n")
    assert generated([10, line, 30, 40, 50], stop="\n") == [10]
    assert generated([line, 20, 99, 40], stop="\n", ends=(99,)) == [65, 20]
    assert generated([99, 20, 30, 40], stop="\n", ends=(99,)) == [65, 20, 30, 40]
