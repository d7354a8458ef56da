"""YAML as people write it: merged, or refused with its line; a message never quotes the file."""

from itertools import pairwise
from pathlib import Path

import pytest

from orchestrator.experiment.experiment import load_experiment
from orchestrator.experiment.problems import ConfigError
from orchestrator.experiment.yaml_files import MOST_CHARACTERS, DocumentError, parse, read_mapping


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a: &m {x: 1, y: 2}\nb: {<<: *m, y: 3}\n", {"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 3}}),
        ("a: &m {x: 1}\nb: {x: 3, <<: *m}\n", {"a": {"x": 1}, "b": {"x": 3}}),
        ("a: &m {x: 1}\nb: &n {x: 2, z: 4}\nc: {<<: [*m, *n]}\n", {"x": 1, "z": 4}),
        ("a: {<<: [&m {<<: {x: 1}, x: 2}], y: 3}\nb: *m\n", {"x": 2}),
        ("'on': 1\n'5': 2\n", {"on": 1, "5": 2}),
        ("\ufeffa: 1\n", {"a": 1}),
    ],
)
def test_merges_are_flattened_and_explicit_keys_take_precedence(text: str, found: object) -> None:
    read = parse(text)
    assert found in (read, list(read.values())[-1])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name: a\nmodel: {{ model }}\n", "line 2: a key must be text, and this one is a mapping; quote"),
        ("seq_lens: [{{ a }}, 64]\n", "line 1: a key must be text, and this one is a mapping; quote"),
        ("a: 1\n? [x, y]\n: 2\n", "line 2: a key must be text, and this one is a list"),
        ("a: 1\n~: 2\n", "line 2: a key must be text, and this one is nothing"),
        ("128: x\n", "line 1: a key must be text, and this one is a number"),
        ("1.5: x\n", "line 1: a key must be text, and this one is a number"),
        ("on: x\n", "line 1: a key must be text, and this one is true or false (on, off"),
        ("a: {yes: x}\n", "line 1: a key must be text, and this one is true or false (on, off"),
        ("2026-01-01: x\n", "line 1: a key must be text, and this one is a date"),
        ("=: x\n", "line 1: a key must be text, and this one is ="),
        ("a: {% if x %}\n", "line 1: while scanning for the next token: found character '%'"),
        ("a: 1\na: 2\n", "line 2: key 'a' is given twice"),
        ("a: &m {x: 1}\nb: {<<: *m, <<: *m}\n", "line 2: key '<<' is given twice"),
        ("a: {<<: 5}\n", "line 1: while constructing a mapping: expected a mapping or list of mappings for merging"),
        ("a: &m [*m]\n", "line 1: a value that contains itself by an alias"),
        ("a: &m {<<: *m}\n", "line 1: a value that contains itself by an alias"),
        ("a:\n\t- x\n", "line 2: a tab where YAML wants spaces"),
        ("a: 1\n---\nb: 2\n", "line 2: a second document begins"),
        ("a: 2026-02-31\n", "line 1: a value that cannot be read as the number or date it looks like"),
        ("a: 0b_\n", "line 1: a value that cannot be read as the number or date it looks like"),
        ("a: !!bool x\n", "line 1: a value that cannot be read as the number or date it looks like"),
        ("a: 1\nb: !!python/name:os.system\n", "line 2: a tag (!…), which has no meaning here"),
        ("a: 1\nb: \x00\n", "line 2: a character that YAML does not allow"),
        ("[" * 5000, "nested too deeply"),
    ],
)
def test_invalid_yaml_is_refused_with_its_line(text: str, expected: str) -> None:
    with pytest.raises(DocumentError) as caught:
        parse(text)
    assert expected in str(caught.value)


@pytest.mark.parametrize("way", ["[{}]", "{{<<: [{}]}}"])
def test_exponentially_growing_aliases_are_refused_before_they_are_expanded(way: str) -> None:
    lines = ["a: &a {x: 1}"]
    lines += [f"{new}: &{new} " + way.format(", ".join([f"*{old}"] * 10)) for old, new in pairwise("abcdefghijkl")]
    with pytest.raises(DocumentError, match="more than 100,000 values once aliases are followed"):
        parse("\n".join(lines))


@pytest.mark.parametrize(
    "text",
    [
        "a: *orange-otter\n",
        "a: !orange-otter x\n",
        "a: !orange-otter!x y\n",
        'a: "\\qorange-otter"\n',
        "a: &orange-otter 1\nb: &orange-otter 2\n",
        "a: [orange-otter\n",
        "orange-otter is\nsecret: x\n",
        "orange-otter is secret: 1\norange-otter is secret: 2\n",
        "a: 'orange-otter\n",
        "a: !!int orange-otter\n",
        "a: | orange-otter\n",
        "a: @orange-otter\n",
        "a: orange-otter\tx: y\n",
        "orange-otter, a letter of many words\n",
        "prompt: orange-otter\n",
        "prompt: [orange-otter]\n",
        "prompt: {random_tokens: orange-otter}\n",
        "prompt: {orange-otter is secret: x}\n",
        "prompt: orange-otter\nprompt: orange-otter\n",
        "orange-otter is secret: x\n",
    ],
)
def test_no_message_quotes_the_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "experiment.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_experiment(path)
    assert "orange-otter" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "the file: nothing; allowed: a mapping with the keys a, b"),
        (b"# only a comment\n", "the file: nothing; allowed: a mapping"),
        (b"- a\n", "the file: a list; allowed: a mapping"),
        (b"words\n", "the file: a text or a single value; allowed: a mapping"),
        (b"a: 1\nb: \xff\n", "the file: it is not UTF-8 text"),
        (b"a: " + b"x" * MOST_CHARACTERS, "the file: more than 1,000,000 characters"),
    ],
)
def test_a_file_that_is_not_a_mapping_is_refused(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_mapping(path, ["a", "b"], "docs/experiments.md")
    assert expected in str(caught.value)
