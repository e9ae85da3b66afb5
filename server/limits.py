"""Says in words what a field of a request may be, from the request's own schema."""

from functools import cache
from typing import Any

from pydantic import BaseModel


def describe_fields(model: type[BaseModel], path: list[str]) -> list[str]:
    """Names of the fields of the request, or of the part of it at `path`."""
    return list(_find(model, path).get("properties", {}))


def describe_allowed(model: type[BaseModel], path: list[str]) -> str | None:
    """For example "integer from 16 to 4096" for `["width"]`; None for what is not a field."""
    found = _find(model, path)
    if "enum" in found:
        return "one of " + ", ".join(str(value) for value in found["enum"])
    kind = found.get("type")
    if kind == "string":
        least, most = found.get("minLength", 0), found.get("maxLength")
        return f"{least} to {most} characters" if most else "text"
    if kind in ("integer", "number"):
        return f"{kind} from {found['minimum']} to {found['maximum']}"
    if kind == "array":
        return f"at most {found['maxItems']} of them"
    return kind


def describe_kind(model: type[BaseModel], path: list[str]) -> str | None:
    """JSON type of a field, such as "object"; None for what is not a field."""
    kind: str | None = _find(model, path).get("type")
    return kind


@cache
def _schema(model: type[BaseModel]) -> dict[str, Any]:
    return model.model_json_schema()


def _find(model: type[BaseModel], path: list[str]) -> dict[str, Any]:
    schema = _schema(model)
    node = schema
    for name in path:
        inner = node.get("items", {}) if name.isdecimal() else node.get("properties", {}).get(name, {})
        node = _plain(schema, inner)
    return node


def _plain(schema: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    """Follow a reference, and take the value out of "value or null"."""
    choices = [choice for choice in node.get("anyOf", []) if choice.get("type") != "null"]
    if choices:
        node = choices[0]
    if "$ref" in node:
        node = schema["$defs"][node["$ref"].rpartition("/")[2]]
    return node
