"""Every error as RFC 9457 problem details, or in OpenAI's shape under /v1. No stack trace reaches a client."""

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
from server.body import MalformedBody, UnsupportedMediaType
from server.openai_schemas import OpenAIError, OpenAIErrorDetails
from server.request_context import REQUEST_ID_HEADER
from server.schemas import FieldProblem, Problem

logger = logging.getLogger(__name__)

PROBLEM_TYPE = "application/problem+json"
OPENAI_PREFIX = "/v1/"
_RETRY_AFTER = {"Retry-After": "5"}


class NotReady(errors.RippleError):
    """The server is up but cannot have jobs done."""

    code = "not_ready"


class BodyTooLarge(errors.RippleError):
    """The body has more bytes than the server takes."""

    code = "body_too_large"


class StillStopping(errors.Refused):
    """A job that was to be deleted has not stopped yet."""

    code = "still_stopping"


class RateLimited(errors.Refused):
    """An API key has sent as many submissions as it may."""

    code = "rate_limited"

    def __init__(self, message: str, retry_after_seconds: int, headers: Mapping[str, str]) -> None:
        super().__init__(message, retry_after_seconds)
        self.headers = headers


_STATUS: dict[type[errors.RippleError], int] = {
    errors.InvalidRequest: 422,
    errors.UnknownModel: 422,
    MalformedBody: 400,
    UnsupportedMediaType: 415,
    BodyTooLarge: 413,
    errors.JobNotFound: 404,
    errors.JobExpired: 410,
    errors.IdempotencyConflict: 409,
    errors.QueueFull: 429,
    errors.TooManyActiveJobs: 429,
    RateLimited: 429,
    errors.NoImage: 404,
    errors.NoPreview: 404,
    errors.VideoNotReady: 409,
    errors.NoVideo: 409,
    errors.VideoExpired: 410,
    StillStopping: 409,
    errors.StorageUnavailable: 503,
    errors.StorageFull: 507,
    NotReady: 503,
}
# Starlette answers 400 only to bodies it cannot read.
_HTTP_CODES = {400: "malformed_json", 404: "not_found", 405: "method_not_allowed"}
_OPENAI_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


Responses = dict[int | str, dict[str, Any]]

_RETRY_HEADER = {"Retry-After": {"description": "Seconds to wait before trying again.", "schema": {"type": "integer"}}}
# What any route may answer: who calls is not known, or the job store is away.
_ALWAYS = (401, 403, 503)


def responses(*statuses: int, also: Responses | None = None, openai: bool = False) -> Responses:
    """For a route's `responses=`: the errors it can answer with, and other answers."""
    kind, name = ("application/json", "OpenAIError") if openai else (PROBLEM_TYPE, "Problem")
    problems: Responses = {}
    for status in sorted({*statuses, *_ALWAYS}):
        content = {kind: {"schema": {"$ref": f"#/components/schemas/{name}"}}}
        problems[status] = {"description": HTTPStatus(status).phrase, "content": content}
        if status in (429, 503):
            problems[status]["headers"] = _RETRY_HEADER
    return problems | (also or {})


def install_error_handlers(app: FastAPI) -> None:
    """Give every kind of error its answer."""
    app.add_exception_handler(errors.RippleError, _on_ripple_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(RedisError, on_redis_error)
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
    if request.url.path.startswith(OPENAI_PREFIX):
        kind = _OPENAI_TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
        param = wrong[0].field if wrong else None
        details = OpenAIErrorDetails(message=detail, type=kind, param=param, code=code)
        return JSONResponse(OpenAIError(error=details).model_dump(), status, headers=headers)
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
                allowed=violation.allowed or None,
                nearest=list(violation.nearest),
            )
            for violation in error.violations
        ]
    elif isinstance(error, errors.UnknownModel):
        wrong = [FieldProblem(field="model", message=str(error))]
    status = _STATUS.get(type(error), 500)
    headers = dict(_RETRY_AFTER) if status == 503 else {}
    if status == 413:
        headers["Connection"] = "close"
    if isinstance(error, errors.Refused):
        headers["Retry-After"] = str(error.retry_after_seconds)
    if isinstance(error, RateLimited):
        headers |= error.headers
    return problem(request, status, error.code, str(error), wrong, headers)


def _on_validation_error(request: Request, error: Exception) -> JSONResponse:
    """Wrong headers and parameters; bodies are read by `server.body`."""
    assert isinstance(error, RequestValidationError)
    # The first part only says where the field was looked for: ("query", "limit") -> limit.
    wrong = [
        FieldProblem(field=".".join(str(part) for part in item["loc"][1:]), message=item["msg"])
        for item in error.errors()
    ]
    detail = "; ".join(f"{item.field}: {item.message}" for item in wrong)
    return problem(request, 422, errors.InvalidRequest.code, detail, wrong)


def _on_http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    code = _HTTP_CODES.get(error.status_code, "http_error")
    detail = f"{request.method} {request.url.path}: {error.detail}. GET /docs shows what there is."
    return problem(request, error.status_code, code, detail, headers=error.headers)


def on_redis_error(request: Request, error: Exception) -> JSONResponse:
    """The answer when the job store is away."""
    logger.warning("Redis cannot be used: %s", error)
    detail = "The job store cannot be reached; try again soon."
    return problem(request, 503, "redis_unavailable", detail, headers=_RETRY_AFTER)


def _on_unexpected_error(request: Request, error: Exception) -> JSONResponse:
    # Further out than all middleware, so the id has to be said again.
    request_id = request.state.request_id
    logger.error("%s %s failed", request.method, request.url.path, exc_info=error, extra={"request_id": request_id})
    # uvicorn drops the connection after an error it is told of; clients must not reuse it.
    headers = {"Connection": "close", REQUEST_ID_HEADER: request_id}
    return problem(
        request, 500, "internal_error", "Something went wrong on the server; its log says what.", headers=headers
    )
