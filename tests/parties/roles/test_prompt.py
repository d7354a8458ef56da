"""The client's prompt, and everything that can be wrong with it."""

from pathlib import Path

import pytest
import tokenizers

from parties.errors import PromptError
from parties.models import load_spec, load_tokenizer
from parties.roles.job import Job
from parties.roles.prompt import prompts
from tests.helpers.saved_models import save, tiny_llama

MODEL = "random:tiny-llama"


def job(seq_len: int = 8, new_tokens: int = 2, batch: int = 1, **prompt: object) -> Job:
    return Job.model_validate(
        {
            "engine": "plain",
            "model": MODEL,
            "policy": {"name": "full"},
            "prompt": prompt,
            "seq_len": seq_len,
            "new_tokens": new_tokens,
            "batch": batch,
        }
    )


def batch_of(wanted: Job) -> list[list[int]]:
    return prompts(wanted, load_tokenizer(MODEL), load_spec(MODEL))


def tokens_of(wanted: Job) -> list[int]:
    (tokens,) = batch_of(wanted)
    return tokens


def test_takes_the_first_tokens_of_a_text(tmp_path: Path) -> None:
    path = tmp_path / "prompt.txt"
    path.write_text("Grüße aus Wien, with more words than needed", encoding="utf-8")
    assert tokens_of(job(text_file=str(path))) == load_tokenizer(MODEL).encode(path.read_text(encoding="utf-8"))[:8]


def test_random_tokens_follow_the_seed() -> None:
    drawn = tokens_of(job(random_tokens=True))
    assert drawn == tokens_of(job(random_tokens=True))
    assert len(drawn) == 8
    assert all(0 <= token < load_spec(MODEL).vocab for token in drawn)


def test_a_batch_of_random_tokens_begins_with_those_of_one_prompt() -> None:
    three = batch_of(job(batch=3, random_tokens=True))
    assert [len(tokens) for tokens in three] == [8] * 3
    assert three[0] == tokens_of(job(random_tokens=True)) != three[1] != three[2]


def test_a_batch_of_a_text_takes_windows_and_one_of_its_lines_takes_lines(tmp_path: Path) -> None:
    path, tokenizer = tmp_path / "prompt.txt", load_tokenizer(MODEL)
    path.write_text("The first line is long.\n\n  And two \nthree", encoding="utf-8")
    windows = batch_of(job(batch=3, text_file=str(path)))
    assert [*windows[0], *windows[1], *windows[2]] == tokenizer.encode(path.read_text())[:24]
    lines = batch_of(job(batch=3, text_file=str(path), lines=True))
    assert lines == [tokenizer.encode(line)[:8] for line in ("The first line is long.", "And two", "three")]


@pytest.mark.parametrize(
    ("text", "lines", "message"),
    [
        ("twelve bytes", False, "12 tokens, seq_len asks for 8 of each of 2 windows"),
        ("one line\n\n", True, "1 lines that are not empty, batch asks for 2"),
        ("one line\na\n", True, "line 2 has fewer than 2 tokens"),
    ],
)
def test_a_text_that_is_too_short_for_a_batch_is_named(tmp_path: Path, text: str, lines: bool, message: str) -> None:
    (tmp_path / "short.txt").write_text(text)
    with pytest.raises(PromptError, match=message):
        batch_of(job(batch=2, text_file=str(tmp_path / "short.txt"), lines=lines))


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
    with pytest.raises(PromptError, match=r"line\.txt: the text is too long: .* neither white space nor") as caught:
        tokens_of(job(text_file=str(path)))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\xef\xbb\xbf"])
def test_an_empty_text(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "empty.txt").write_bytes(content)
    with pytest.raises(PromptError, match="the text has 0 tokens, seq_len asks for 8; give a longer text"):
        tokens_of(job(text_file=str(tmp_path / "empty.txt")))


def test_line_ends_of_windows_are_those_of_the_model(tmp_path: Path) -> None:
    for name, end in (("unix", b"\n"), ("windows", b"\r\n")):
        (tmp_path / name).write_bytes(end.join([b"one", b"two", b"three"]))
    unix, windows = (tokens_of(job(text_file=str(tmp_path / name))) for name in ("unix", "windows"))
    assert unix == windows == load_tokenizer(MODEL).encode("one\ntwo\n")


@pytest.mark.parametrize("sentence", ["我每天都写日记。", "ฉันเขียนบันทึก…"])
def test_one_huge_line_in_a_script_without_spaces(tmp_path: Path, sentence: str) -> None:
    path = tmp_path / "line.txt"
    path.write_text(sentence * 600_000, encoding="utf-8")
    tokenizer = load_tokenizer(MODEL)
    assert tokens_of(job(seq_len=500, text_file=str(path))) == tokenizer.encode(sentence * 100)[:500]


@pytest.fixture(scope="module")
def chatty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a model that a client needs: none with weights."""
    folder = save(tiny_llama(tied=True), tmp_path_factory.mktemp("chatty"))
    (folder / "model.safetensors").unlink()
    inner = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    inner.add_special_tokens(["<unk>"])
    inner.save(str(folder / "tokenizer.json"))
    (folder / "chat_template.jinja").write_text(
        "{% for m in messages %}<unk>{{ m.role }}:{{ m.content }}\n{% endfor %}"
        "{{ '<unk>bot:' if add_generation_prompt }}"
    )
    return folder


def client_tokens(folder: Path, wanted: Job) -> list[int]:
    return prompts(wanted, load_tokenizer(str(folder)), load_spec(str(folder)))[0]


@pytest.mark.parametrize(
    ("content", "count"),
    [
        ("- {role: user, content: hi}", 14),
        ('[{"role": "user", "content": "hi \\ud83d\\ude00"}]', 19),  # as YAML, these were two halves of a letter
        ('{"messages": [{"role": "user", "content": "hi"}]}', 14),
    ],
)
def test_a_chat_is_tokenised_with_files_that_hold_no_weights(
    tmp_path: Path, chatty: Path, content: str, count: int
) -> None:
    path = tmp_path / "chat.yaml"
    path.write_text(content)
    tokenizer = load_tokenizer(str(chatty))
    ids = client_tokens(chatty, job(seq_len=count, messages=str(path)))
    assert tokenizer.decode(ids).startswith("user:hi")
    assert tokenizer.decode(ids[-5:]) == "bot:"


def test_special_tokens_of_a_text_are_letters_unless_asked_for(tmp_path: Path, chatty: Path) -> None:
    path = tmp_path / "prompt.txt"
    path.write_text("a<unk>b<unk>c d e f g")
    tokenizer = load_tokenizer(str(chatty))
    (mark,) = tokenizer.encode("<unk>", parse_special=True)
    text, asked = (client_tokens(chatty, job(text_file=str(path), special_tokens=asked)) for asked in (False, True))
    assert tokenizer.decode(text) == "a<unk>b<"
    assert tokenizer.decode(asked) == "abc d "
    assert [place for place, token in enumerate(asked) if token == mark] == [1, 3]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "does not hold a list of messages"),
        ("[]", "does not hold a list of messages"),
        ("{prompt: {text_file: secret.txt}}", "does not hold a list of messages"),
        ("- secret", "message 1 is not a mapping of role and content"),
        ("- {role: user, content: a}\n- {role: user, secret: a}", "message 2 is not a mapping of role and content"),
        ("- {role: user, content: [secret]}", "content of message 1 is not a text"),
        ("- {role: user, content: 2024-99-99}", "it is not YAML"),
        ("- {role: '', content: secret}", "role of message 1 is empty"),
        ("- {role: user, content: *secret}", "line 1 is not YAML"),
        ("!!python/object:secret.Secret {}", "line 1 is not YAML"),
        ("[" * 5000, "not YAML"),
        ("- {role: user, content: secret}", "the chat has 18 tokens, seq_len asks for 8, .* set seq_lens to 13 to 18"),
        ('[{"role": "user", "content": "%s"}]' % ("secret" * 800_000), "4,800,000 characters; give at most"),
    ],
)
def test_messages_that_cannot_be_used_are_named_and_not_quoted(
    tmp_path: Path, chatty: Path, content: str, message: str
) -> None:
    path = tmp_path / "chat.yaml"
    path.write_text(content)
    with pytest.raises(PromptError, match=rf"prompt\.messages: .*chat\.yaml: .*{message}") as caught:
        client_tokens(chatty, job(messages=str(path)))
    assert "secret" not in str(caught.value)


def test_a_length_beyond_the_model_is_refused() -> None:
    limit = load_spec(MODEL).max_positions
    with pytest.raises(PromptError, match=f"seq_len {limit} and new_tokens 2 exceed the model's {limit} positions"):
        tokens_of(job(seq_len=limit, random_tokens=True))
