"""Reads request bodies: JSON as it is, forms with files as the same fields. The first kind takes microseconds."""

import json
import re
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException

from ripple_core.contract.errors import InvalidRequest, RippleError, Violation
from ripple_core.contract.request import MAX_IMAGE_CHARACTERS
from server.limits import describe_allowed, describe_fields, describe_kind

Body = TypeVar("Body", bound=BaseModel)

_FORMS = ("multipart/form-data", "application/x-www-form-urlencoded")
# reuse[aggressiveness], loras[0][name] and reuse.aggressiveness all name a part of a field.
_PARTS = re.compile(r"[^\[\].]+")
_MAX_FIELDS = 100
_MAX_PARTS, _MAX_PART_CHARACTERS = 8, 100
# More than any request of ours has, its texts included; every one of a million unknown fields would become an error.
_MAX_COMMAS = 10_000
_MAX_ERRORS = 50


class MalformedBody(RippleError):
    """The body is not what its content type says."""

    code = "malformed_json"


class UnsupportedMediaType(RippleError):
    """The body's content type is not one that the route reads."""

    code = "unsupported_media_type"


async def read_body(request: Request, model: type[Body], file_field: str | None = None) -> tuple[Body, bytes | None]:
    """The body as a model, and the content of its file.

    Args:
        request: with a JSON or form body.
        model: what it must be.
        file_field: name of the form field that may hold a file.

    Raises:
        InvalidRequest: with every wrong field.
        MalformedBody: when it cannot be read at all.
        UnsupportedMediaType: for other content types.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        if kind == "application/json" or kind.endswith("+json"):
            return model.model_validate_json(_not_too_many(await request.body())), None
        if kind in _FORMS:
            fields, file = await _read_form(request, model, file_field)
            return model.model_validate_json(json.dumps(fields)), file
    except ValidationError as error:
        raise _invalid(error, model) from None
    raise UnsupportedMediaType(f"The body is {kind or 'of no type'}; send application/json or multipart/form-data.")


async def _read_form(
    request: Request, model: type[BaseModel], file_field: str | None
) -> tuple[dict[str, Any], bytes | None]:
    try:
        form = await request.form(max_files=1, max_fields=_MAX_FIELDS, max_part_size=MAX_IMAGE_CHARACTERS)
    except (MultiPartException, HTTPException) as error:
        reason = getattr(error, "message", None) or getattr(error, "detail", "it cannot be read")
        raise MalformedBody(f"The form cannot be read: {reason}") from error
    file = None
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            if name != file_field:
                allowed = f"only {file_field} may be a file" if file_field else "no file is taken here"
                raise InvalidRequest([Violation(name, f"is a file; {allowed}", allowed)])
            file = await value.read()
    return _nested(form, model), file


def _nested(form: FormData, model: type[BaseModel]) -> dict[str, Any]:
    """`reuse[mode]=dense` and `reuse={"mode": "dense"}` as {"reuse": {"mode": "dense"}}; numbered parts as a list."""
    root: dict[str, Any] = {}
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            continue
        path = _PARTS.findall(name) or [name]
        if (
            len(path) > _MAX_PARTS
            or len(name) > _MAX_PARTS * _MAX_PART_CHARACTERS
            or max(map(len, path)) > _MAX_PART_CHARACTERS
        ):
            raise InvalidRequest([Violation(name[:100], "is not a known field", "a field's name")])
        node = root
        for part in path[:-1]:
            child = node.setdefault(part, {})
            if not isinstance(child, dict):
                raise InvalidRequest([Violation(name, "is given both as a whole and in parts", "one of the two")])
            node = child
        node[path[-1]] = _read_value(name, value, describe_kind(model, path))
    return {name: _lists(value) for name, value in root.items()}


def _read_value(name: str, text: str, kind: str | None) -> Any:
    """A field of a form is text; what shall be a number or have parts is read as JSON."""
    if kind in (None, "string"):
        return text
    try:
        return json.loads(_not_too_many(text.encode()))
    except (ValueError, RecursionError) as error:
        if kind not in ("object", "array"):
            # The model says better what it should have been.
            return text
        allowed = f"JSON, or parts as in {name}[part]=value"
        raise InvalidRequest([Violation(name, f"is not JSON ({error}); allowed: {allowed}", allowed)]) from None


def _not_too_many(content: bytes) -> bytes:
    if content.count(b",") > _MAX_COMMAS:
        allowed = f"at most {_MAX_COMMAS:,} commas"
        raise InvalidRequest([Violation("body", f"has too many fields or values; allowed: {allowed}", allowed)])
    return content


def _lists(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    inner = {name: _lists(item) for name, item in value.items()}
    numbered = inner and all(name.isdecimal() for name in inner)
    return [inner[name] for name in sorted(inner, key=int)] if numbered else inner


def _invalid(error: ValidationError, model: type[BaseModel]) -> RippleError:
    found = error.errors(include_url=False, include_input=False)[:_MAX_ERRORS]
    if found[0]["type"] == "json_invalid":
        return MalformedBody(f"The body is not JSON: {found[0]['ctx']['error']}.")
    return InvalidRequest([_violation(dict(item), model) for item in found])


def _violation(item: dict[str, Any], model: type[BaseModel]) -> Violation:
    """One of pydantic's errors with the whole allowed range, not only the bound that was broken."""
    path = [str(part) for part in item["loc"]]
    field = ".".join(path) or "body"
    if item["type"] == "extra_forbidden":
        known = ", ".join(describe_fields(model, path[:-1]))
        return Violation(field, f"is not a known field; known are: {known}", known)
    allowed = describe_allowed(model, path) or ""
    message = item["msg"].removeprefix("Value error, ")
    return Violation(field, message + (f"; allowed: {allowed}" if allowed else ""), allowed)
