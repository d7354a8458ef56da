"""The client's prompt, and everything that can be wrong with it."""

from pathlib import Path

import pytest

from parties.errors import PromptError
from parties.models import load_spec, load_tokenizer
from parties.roles.job import Job
from parties.roles.prompt import prompt_tokens

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
        (None, "cannot read .*No such file"),
        (b"\xff\xfe\x00", "cannot read .*not UTF-8 text"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:aa\n", "Git LFS pointer.*git lfs pull"),
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


def test_a_byte_order_mark_is_not_part_of_the_prompt(tmp_path: Path) -> None:
    (tmp_path / "plain.txt").write_text("Grüße aus Wien", encoding="utf-8")
    (tmp_path / "marked.txt").write_text("Grüße aus Wien", encoding="utf-8-sig")
    plain, marked = (tokens_of(job(text_file=str(tmp_path / f"{name}.txt"))) for name in ("plain", "marked"))
    assert marked == plain


def test_a_prompt_in_place_of_a_path_is_not_repeated(tmp_path: Path) -> None:
    for pasted in ("My secret diary, page one. " * 20, "my secret", "line one\nsecret", "a\0secret", "我的秘密日记"):
        with pytest.raises(PromptError, match=r"prompt\.text_file: cannot read") as caught:
            tokens_of(job(text_file=pasted))
        assert pasted not in str(caught.value)
        assert "secret" not in str(caught.value)


def test_of_a_huge_prompt_only_the_beginning_is_read(tmp_path: Path) -> None:
    path = tmp_path / "line.txt"
    path.write_text("The museum opened its doors in spring. " * 300_000)
    with path.open("r+b") as file:
        file.seek(1_000_000)
        file.write(b"\xff")  # not UTF-8, which is an error if it is read
    whole = load_tokenizer(MODEL).encode("The museum opened its doors in spring. " * 100)
    assert tokens_of(job(seq_len=1000, text_file=str(path))) == whole[:1000]


def test_a_huge_prompt_that_cannot_be_cut_is_named(tmp_path: Path) -> None:
    path = tmp_path / "line.txt"
    path.write_text("secret" * 2_000_000)
    with pytest.raises(PromptError, match=r"line\.txt: the text is too long: .* no white space") as caught:
        tokens_of(job(text_file=str(path)))
    assert "secret" not in str(caught.value)


def test_a_length_beyond_the_model_is_refused() -> None:
    limit = load_spec(MODEL).max_positions
    with pytest.raises(PromptError, match=f"seq_len {limit} and new_tokens 2 exceed the model's {limit} positions"):
        tokens_of(job(seq_len=limit, random_tokens=True))
