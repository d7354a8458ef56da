"""Messages of a chat, read from the client's file; errors never quote them, since they are the prompt."""

import contextlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from parties.text_file import Unreadable, read_text

_FORM = "a list of messages, each with role and content"


class Message(NamedTuple):
    """One message of a chat."""

    role: str
    content: str


def read_messages(path: Path) -> list[Message]:
    """The messages in a YAML or JSON file.

    Args:
        path: The file: the list itself, a mapping with `messages`, or an experiment whose `prompt` has `messages`.

    Raises:
        Unreadable: The file cannot be read, or holds something else. The reason does not quote it.
    """
    found = _parse(read_text(path))
    for key in ("prompt", "messages"):
        found = found.get(key, found) if isinstance(found, dict) else found
    if not isinstance(found, list) or not found:
        raise Unreadable(f"it does not hold {_FORM}")
    return [_message(number, given) for number, given in enumerate(found, 1)]


def _parse(text: str) -> Any:
    """JSON is read as such, since YAML reads some of its escapes differently."""
    with contextlib.suppress(ValueError, RecursionError):
        return json.loads(text)
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1} is not YAML" if mark is not None else "it is not YAML"
        raise Unreadable(place) from None


def _message(number: int, given: object) -> Message:
    if not isinstance(given, dict) or given.keys() != {"role", "content"}:
        raise Unreadable(f"message {number} is not a mapping of role and content, and nothing else")
    if wrong := next((key for key in Message._fields if not isinstance(given[key], str)), None):
        raise Unreadable(f"{wrong} of message {number} is not a text; quote it")
    if not given["role"]:
        raise Unreadable(f"role of message {number} is empty; write system, user or assistant")
    return Message(given["role"], given["content"])
