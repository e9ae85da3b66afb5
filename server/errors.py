"""Every error as RFC 9457 problem details. No stack trace reaches a client."""

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from redis import RedisError
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection

from ripple_core.contract import errors
from server.limits import describe_allowed, describe_fields
from server.schemas import FieldProblem, Problem

logger = logging.getLogger(__name__)

PROBLEM_TYPE = "application/problem+json"
_RETRY_AFTER = {"Retry-After": "5"}


class NotReady(errors.RippleError):
    """The server is up but cannot have jobs done."""

    code = "not_ready"


_STATUS: dict[type[errors.RippleError], int] = {
    errors.InvalidRequest: 422,
    errors.UnknownModel: 422,
    errors.JobNotFound: 404,
    errors.VideoNotReady: 409,
    errors.NoVideo: 409,
    errors.VideoExpired: 410,
    NotReady: 503,
}
# Starlette answers 400 only to bodies it cannot read.
_HTTP_CODES = {400: "malformed_json", 404: "not_found", 405: "method_not_allowed"}


Responses = dict[int | str, dict[str, Any]]


def responses(*statuses: int, also: Responses | None = None) -> Responses:
    """For a route's `responses=`: the problems it can answer with, and other answers."""
    problems: Responses = {
        status: {"description": HTTPStatus(status).phrase, "content": {PROBLEM_TYPE: {"schema": _SCHEMA_REFERENCE}}}
        for status in (*statuses, 503)
    }
    return problems | (also or {})


_SCHEMA_REFERENCE = {"$ref": "#/components/schemas/Problem"}


def install_error_handlers(app: FastAPI) -> None:
    """Give every kind of error its answer."""
    app.add_exception_handler(errors.RippleError, _on_ripple_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(RedisError, _on_redis_error)
    app.add_exception_handler(Exception, _on_unexpected_error)


def problem(
    request: HTTPConnection,
    status: int,
    code: str,
    detail: str,
    wrong: list[FieldProblem] | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """The answer to a request that went wrong."""
    body = Problem(
        title=HTTPStatus(status).phrase,
        status=status,
        code=code,
        detail=detail,
        instance=request.url.path,
        errors=wrong or [],
    )
    return JSONResponse(body.model_dump(), status, media_type=PROBLEM_TYPE, headers=headers)


def _on_ripple_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, errors.RippleError)
    wrong: list[FieldProblem] = []
    if isinstance(error, errors.InvalidRequest):
        wrong = [
            FieldProblem(
                field=violation.field,
                message=violation.message,
                allowed=violation.allowed,
                nearest=list(violation.nearest),
            )
            for violation in error.violations
        ]
    elif isinstance(error, errors.UnknownModel):
        wrong = [FieldProblem(field="model", message=str(error))]
    status = _STATUS.get(type(error), 500)
    return problem(request, status, error.code, str(error), wrong, _RETRY_AFTER if status == 503 else None)


def _on_validation_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    if any(item["type"] == "json_invalid" for item in error.errors()):
        reason = error.errors()[0]["ctx"]["error"]
        return problem(request, 400, "malformed_json", f"The body is not JSON: {reason}.")
    wrong = [_field_problem(item) for item in error.errors()]
    detail = "; ".join(f"{item.field}: {item.message}" for item in wrong)
    return problem(request, 422, errors.InvalidRequest.code, detail, wrong)


def _field_problem(item: dict[str, Any]) -> FieldProblem:
    """One of pydantic's errors with the whole allowed range, not only the bound that was broken."""
    # The first part only says where the field was looked for: ("body", "reuse", "mode") -> reuse.mode.
    path = [str(part) for part in item["loc"][1:]] or [str(item["loc"][0])]
    field = ".".join(path)
    if item["type"] == "extra_forbidden":
        known = ", ".join(describe_fields(path[:-1]))
        return FieldProblem(field=field, message=f"is not a known field; known are: {known}", allowed=known)
    allowed = describe_allowed(path) if item["loc"][0] == "body" else None
    message = item["msg"] + (f"; allowed: {allowed}" if allowed else "")
    return FieldProblem(field=field, message=message, allowed=allowed)


def _on_http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    code = _HTTP_CODES.get(error.status_code, "http_error")
    detail = f"{request.method} {request.url.path}: {error.detail}. GET /docs shows what there is."
    return problem(request, error.status_code, code, detail, headers=error.headers)


def _on_redis_error(request: Request, error: Exception) -> JSONResponse:
    logger.warning("Redis cannot be used: %s", error)
    detail = "The job store cannot be reached; try again soon."
    return problem(request, 503, "redis_unavailable", detail, headers=_RETRY_AFTER)


def _on_unexpected_error(request: Request, error: Exception) -> JSONResponse:
    logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
    # uvicorn drops the connection after an error it is told of; clients must not reuse it.
    headers = {"Connection": "close"}
    return problem(
        request, 500, "internal_error", "Something went wrong on the server; its log says what.", headers=headers
    )
