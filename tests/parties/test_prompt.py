"""The client's prompt, and everything that can be wrong with it."""

from pathlib import Path

import pytest

from parties.errors import PromptError
from parties.job import Job
from parties.models import load_spec, load_tokenizer
from parties.prompt import prompt_tokens

MODEL = "random:tiny-llama"


def job(seq_len: int = 8, new_tokens: int = 2, **prompt: object) -> Job:
    return Job.model_validate(
        {
            "engine": "plain",
            "model": MODEL,
            "policy": {"name": "full"},
            "prompt": prompt,
            "seq_len": seq_len,
            "new_tokens": new_tokens,
        }
    )


def tokens_of(wanted: Job) -> list[int]:
    return prompt_tokens(wanted, load_tokenizer(MODEL), load_spec(MODEL))


def test_takes_the_first_tokens_of_a_text(tmp_path: Path) -> None:
    path = tmp_path / "prompt.txt"
    path.write_text("Grüße aus Wien, with more words than needed", encoding="utf-8")
    assert tokens_of(job(text_file=str(path))) == load_tokenizer(MODEL).encode(path.read_text(encoding="utf-8"))[:8]


def test_random_tokens_follow_the_seed() -> None:
    drawn = tokens_of(job(random_tokens=True))
    assert drawn == tokens_of(job(random_tokens=True))
    assert len(drawn) == 8
    assert all(0 <= token < load_spec(MODEL).vocab for token in drawn)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read .*FileNotFoundError"),
        (b"\xff\xfe\x00", "UnicodeDecodeError"),
        (b"hi", "2 tokens, seq_len asks for 8"),
    ],
)
def test_an_unusable_file_is_named(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "prompt.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(PromptError, match=message) as caught:
        tokens_of(job(text_file=str(path)))
    assert str(path) in str(caught.value)
    assert caught.value.status == "config_error"


def test_a_length_beyond_the_model_is_refused() -> None:
    limit = load_spec(MODEL).max_positions
    with pytest.raises(PromptError, match=f"seq_len {limit} and new_tokens 2 exceed the model's {limit} positions"):
        tokens_of(job(seq_len=limit, random_tokens=True))
