"""YAML files that people write: read whole, or refused by what is wrong with them."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from orchestrator.problems import ConfigError, Problem


def read_mapping(path: Path, keys: Iterable[str], document: str) -> dict[str, Any]:
    """The mapping that a YAML file holds.

    Args:
        path: The file.
        keys: What the mapping may have, for the message.
        document: Where they are explained, for the message.

    Raises:
        ConfigError: There is no such file, or it is not YAML or no mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigError(str(path), [Problem("", reason, "a readable YAML file", "correct the path")]) from None
    try:
        data = yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader that refuses a key given twice
    except yaml.YAMLError as error:
        fault = " ".join(str(error).replace('in "<unicode string>", ', "in ").split())
        raise ConfigError(str(path), [Problem("", fault, "YAML", "correct the line named")]) from None
    if not isinstance(data, dict):
        allowed = f"a mapping with the keys {', '.join(keys)}"
        raise ConfigError(str(path), [Problem("", data, allowed, f"see {document}")])
    return data


class _Loader(yaml.SafeLoader):
    """YAML in which a key given twice is an error, not a silent last-one-wins."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[object] = set()
    for key, _ in node.value:
        if key.value in seen:
            raise yaml.constructor.ConstructorError(None, None, f"key {key.value!r} is given twice", key.start_mark)
        seen.add(key.value)
    return dict(loader.construct_pairs(node, deep=True))


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
