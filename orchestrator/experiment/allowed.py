"""What a key may hold, in words, from the JSON schema of its field: for messages and for the reference page."""

from collections.abc import Sequence
from functools import cache
from typing import Any

from pydantic import BaseModel

_MAPPINGS = ("/Prompt", "/Condition", "/SpuOptions", "/DraftOptions")
_ONE_AND_MANY = {
    "string": ("text", "texts"),
    "integer": ("whole number", "whole numbers"),
    "number": ("number", "numbers"),
    "boolean": ("`true` or `false`", "`true` or `false`"),
    "object": ("mapping", "mappings"),
}
_BOUNDS = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to", "exclusiveMaximum": "below"}


def allowed(model: type[BaseModel], path: Sequence[int | str]) -> str:
    """The type and bounds of a field, or of something in it.

    Args:
        model: The model that has the field.
        path: The field, and below it the index of an item or the key of a mapping.
    """
    schema = _schema(model)["properties"][path[0]]
    for step in path[1:]:
        schema = _below(_without_none(schema), step)
    return _words(schema)


def _below(schema: dict[str, Any], step: int | str) -> dict[str, Any]:
    below: Any = schema.get("items" if isinstance(step, int) else "additionalProperties")
    return below if isinstance(below, dict) else schema


@cache
def _schema(model: type[BaseModel]) -> dict[str, Any]:
    return model.model_json_schema(mode="validation")


def _without_none(schema: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = next((part for part in schema.get("anyOf", [schema]) if part.get("type") != "null"), schema)
    return found


def _words(schema: dict[str, Any], *, many: bool = False) -> str:
    schema = _without_none(schema)
    if "$ref" in schema:
        named = "" if schema["$ref"].endswith(_MAPPINGS) else "names or " if many else "name or "
        return f"{named}mapping{'s' if many else ''}"
    if "enum" in schema or "const" in schema:
        *others, last = (f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
        return f"{', '.join(others)} or {last}" if others else last
    kind = schema.get("type", "object")
    if isinstance(kind, list):
        return " or ".join(_words({"type": one}, many=many) for one in kind)
    if kind == "array":
        least = ", at least one, each once" if schema.get("minItems") else ""
        return f"list{'s' if many else ''} of {_words(schema.get('items', {}), many=True)}{least}"
    if isinstance(schema.get("additionalProperties"), dict):
        return f"mapping from role to {_words(schema['additionalProperties'])}"
    limits = [f"{word} {schema[key]:g}" for key, word in _BOUNDS.items() if key in schema and schema[key] < 2**53]
    return " ".join([_ONE_AND_MANY[kind][many], *limits])
