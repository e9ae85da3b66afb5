"""One id for a request in every process that serves it: in its answer, in logs and in its jobs."""

import logging
import re
import secrets
import time
from urllib.parse import quote

from opentelemetry import trace
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bound_contextvars

logger = logging.getLogger(__name__)

REQUEST_ID_HEADER = "X-Request-ID"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
# Asked every few seconds by machines.
_QUIET = {"/healthz", "/readyz", "/metrics"}
_SERVER_ERROR = 500


def is_quiet(scope: Scope) -> bool:
    """Whether a request is one that is neither logged nor traced."""
    return scope["path"] in _QUIET


class RequestContext:
    """ASGI middleware, the outermost: takes over a client's `X-Request-ID` or makes one, and logs the request."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102 - ASGI
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(REQUEST_ID_HEADER, "")
        request_id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(16)
        scope.setdefault("state", {})["request_id"] = request_id
        if scope["query_string"]:
            # Signed links have their tokens there; FastAPI's span would tell them.
            trace.get_current_span().set_attribute("url.query", "REDACTED")
        began, status = time.monotonic(), _SERVER_ERROR

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[REQUEST_ID_HEADER] = request_id
            await send(message)

        with bound_contextvars(request_id=request_id):
            try:
                await self._app(scope, receive, send_with_id)
            finally:
                level = logging.DEBUG if is_quiet(scope) else logging.INFO
                logger.log(level, "request", extra=_about(scope) | {"status": status, "seconds": _since(began)})


def _about(scope: Scope) -> dict[str, str]:
    # Without the query, and percent-encoded, so that it is one word.
    return {"method": scope["method"], "path": quote(scope["path"])}


def _since(began: float) -> float:
    return round(time.monotonic() - began, 4)
