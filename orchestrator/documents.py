"""YAML files that people write: read whole, or refused by what is wrong with them."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from orchestrator.problems import ConfigError, Problem
from parties.text_file import Unreadable, read_text

# What the parser quotes, except its own words and marks: <scalar>, ':', Python's tags.
_QUOTED = re.compile(r"'(?!<|tag:yaml\.org,2002:python/)[^']{2,}'")
_KEY = re.compile(r"[a-z][a-z_>]*")


def read_mapping(path: Path, keys: Iterable[str], document: str) -> dict[str, Any]:
    """The mapping that a YAML file holds.

    Args:
        path: The file.
        keys: What the mapping may have, for the message.
        document: Where they are explained, for the message.

    Raises:
        ConfigError: There is no such file, or it is not YAML or no mapping.
    """
    keys = list(keys)
    allowed, source = f"a mapping with the keys {', '.join(keys)}", str(path)
    try:
        text = read_text(path)
    except Unreadable as error:
        raise ConfigError(source, [Problem("", str(error), "a readable YAML file", "correct the path")]) from None
    try:
        data = yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader that refuses a key given twice
    except (yaml.YAMLError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise ConfigError(source, [Problem("", _fault(error), "YAML", "correct the line named")]) from None
    if not isinstance(data, dict):
        raise ConfigError(source, [Problem("", f"a {type(data).__name__}", allowed, f"see {document}")])
    if not set(keys) & set(data):  # something else than an experiment, perhaps the prompt: its words are not repeated
        raise ConfigError(source, [Problem("", "a mapping that has none of them", allowed, f"see {document}")])
    return data


def _fault(error: Exception) -> str:
    """What is not YAML, and where: in the parser's words, but without those that it quotes from the file."""
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return "it cannot be read as YAML" if not isinstance(error, yaml.reader.ReaderError) else error.reason
    problem = _QUOTED.sub("'...'", error.problem or "") if not isinstance(error, _Twice) else error.problem  # type: ignore[attr-defined]
    return f"{problem}, in line {mark.line + 1}, column {mark.column + 1}"


class _Twice(yaml.constructor.ConstructorError):
    """A key given twice."""


class _Loader(yaml.SafeLoader):
    """YAML in which a key given twice is an error, not a silent last-one-wins."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[object] = set()
    for key, _ in node.value:
        if key.value in seen:
            name = f"key {key.value!r}" if _KEY.fullmatch(key.value) else "a key"
            raise _Twice(None, None, f"{name} is given twice", key.start_mark)
        seen.add(key.value)
    return dict(loader.construct_pairs(node, deep=True))


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
