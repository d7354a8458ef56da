"""The words that a text is split into before the merges of a byte-level BPE."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders
from transformers import Qwen2Tokenizer

from parties.models.words import RULES, word_rule

TEXT = "Hello WORLD's 12345 don't über 我的日记, 한국어!\n\n  x=1; aB\tend "
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


def words(rule: str, text: str) -> list[str]:
    decode = decoders.ByteLevel().decode
    return [decode([word]) for word, _ in word_rule(rule).pre_tokenize_str(text)]


@pytest.mark.parametrize("rule", RULES)
def test_no_rule_loses_a_letter(rule: str) -> None:
    assert "".join(words(rule, TEXT)) == TEXT


@pytest.mark.parametrize(
    ("rules", "text", "expected"),
    [
        ("gpt-2 mpt olmo", "it's 2024", ["it", "'s", " 2024"]),
        ("smollm starcoder", "it's 2024", ["it", "'s", " ", "2", "0", "2", "4"]),
        ("llama-bpe smaug-bpe glm4", "IT'S 2024!\n\nx", ["IT", "'S", " ", "202", "4", "!\n\n", "x"]),
        ("qwen2 stablelm2", "IT'S 24!\n\nx", ["IT", "'S", " ", "2", "4", "!\n\n", "x"]),
        ("gpt-4o llama4", "it's helloWorld 2024/", ["it's", " hello", "World", " ", "202", "4", "/"]),
        ("tekken", "it's helloWorld 24", ["it", "'s", " hello", "World", " ", "2", "4"]),
        ("tiny_aya", "12345 x", ["12", "345", " x"]),
        ("deepseek-v3", "x日本 2024.", ["x", "日本", " ", "202", "4", "."]),
        ("deepseek-coder", "f(x) 24\n", ["f", "(", "x", ")", " ", "2", "4", "\n"]),
        ("kimi-k2", "日本 HelloWorld", ["日本", " Hello", "World"]),
        ("bloom", "one, two", ["one", ",", " two"]),
        ("viking", "one 24", ["one", " ", "2", "4"]),
        ("exaone-moe", "one two 3", ["one two", " ", "3"]),
    ],
)
def test_words(rules: str, text: str, expected: list[str]) -> None:
    for rule in rules.split():
        assert words(rule, text) == expected


@settings(max_examples=50)
@given(texts)
def test_qwen2_splits_as_in_transformers(text: str) -> None:
    theirs = Qwen2Tokenizer(vocab={"a": 0, "<|endoftext|>": 1}, merges=[]).backend_tokenizer.pre_tokenizer
    assert word_rule("qwen2").pre_tokenize_str(text) == theirs.pre_tokenize_str(text)
