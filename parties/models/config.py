"""Reads `config.json` of a transformers checkpoint into a `ModelSpec`, or explains why the decoder cannot run it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from parties.errors import ModelError
from parties.models.config_facts import READERS
from parties.models.config_keys import check_keys
from parties.models.spec import ModelSpec
from parties.text_file import Unreadable, read_text


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        ModelError: The file is missing, unreadable or not a JSON object.
    """
    try:
        content = json.loads(read_text(path))
    except (Unreadable, ValueError, RecursionError) as error:
        raise ModelError(f"cannot read {path}: {error}; fetch the model again") from None
    if not isinstance(content, dict):
        raise ModelError(f"{path} holds a {type(content).__name__}, not a JSON object; fetch the model again")
    return content


def read_config(folder: Path) -> ModelSpec:
    """The specification of the model in a folder.

    Raises:
        ModelError: A field is missing or invalid, or requests something that the decoder does not support.
    """
    path = folder / "config.json"
    config = read_json(path)
    family = config.get("model_type")
    if family not in list(READERS):
        raise ModelError(f"{path}: model_type is {family!r}; supported: {', '.join(READERS)}")
    generation = folder / "generation_config.json"
    eos = _token_ids(config) | (_token_ids(read_json(generation)) if generation.exists() else set())
    try:
        check_keys(config, family)
        facts = READERS[family](config)
        # A token beyond the vocabulary cannot occur; small test models inherit such defaults.
        known = tuple(sorted(token for token in eos if token < facts["vocab"]))
        return ModelSpec(family=family, **facts, eos_ids=known)
    except KeyError as error:
        raise ModelError(f"{path}: field {error.args[0]} is missing; fetch the model again") from error
    except (TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise ModelError(f"{path}: a field has an invalid value: {error}; fetch the model again") from error
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error


def _token_ids(config: Mapping[str, Any]) -> set[int]:
    """`eos_token_id` is absent, a number or a list of numbers."""
    ids = config.get("eos_token_id")
    return {token for token in (ids if isinstance(ids, list) else [ids]) if isinstance(token, int)}
