"""Says in words what a field of a request may be, from the request's own schema."""

from typing import Any

from ripple_core.contract.request import GenerateRequest

_SCHEMA = GenerateRequest.model_json_schema()


def describe_fields(path: list[str]) -> list[str]:
    """Names of the fields of the request, or of the part of it at `path`."""
    return list(_find(path).get("properties", {}))


def describe_allowed(path: list[str]) -> str | None:
    """For example "integer from 16 to 4096" for `["width"]`; None for what is not a field."""
    found = _find(path)
    if "enum" in found:
        return "one of " + ", ".join(str(value) for value in found["enum"])
    kind = found.get("type")
    if kind == "string":
        return f"{found.get('minLength', 0)} to {found['maxLength']} characters"
    if kind in ("integer", "number"):
        return f"{kind} from {found['minimum']} to {found['maximum']}"
    return kind


def _find(path: list[str]) -> dict[str, Any]:
    node = _SCHEMA
    for name in path:
        node = _plain(node.get("properties", {}).get(name, {}))
    return node


def _plain(node: dict[str, Any]) -> dict[str, Any]:
    """Follow a reference, and take the value out of "value or null"."""
    choices = [choice for choice in node.get("anyOf", []) if choice.get("type") != "null"]
    if choices:
        node = choices[0]
    if "$ref" in node:
        node = _SCHEMA["$defs"][node["$ref"].rpartition("/")[2]]
    return node
