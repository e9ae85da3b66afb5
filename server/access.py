"""Who calls: default-deny, before any route. Whatever is not listed as open needs a key where keys are in use."""

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

from redis import RedisError
from starlette.datastructures import Headers
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from ripple_core.contract.job import JobRecord
from ripple_core.contract.keys import API_KEYS, KEYS_IN_USE, ApiKey, digest
from ripple_core.contract.links import SIGNING_SECRET, verify
from server.errors import on_redis_error, problem
from server.guard import find_forgery
from server.settings import ServerSettings
from server.studio import STUDIO_FILES

DOCS_FILES = "/docs/files"
_OPEN = {"/", "/healthz", "/readyz", "/docs", "/docs/oauth2-redirect", "/openapi.json"}
# What holds no job and no setting.
_OPEN_FOLDERS = (f"{DOCS_FILES}/", f"{STUDIO_FILES}/")
_FILES = re.compile(r"/jobs/([0-9a-f]{28})/(?:video|thumbnail|spritesheet)|/v1/videos/([0-9a-f]{28})/content")
_LINK_PROBLEMS = {
    "expired": ("link_expired", "The link was good for its time; ask for a new one."),
    "invalid": ("invalid_link", "The link's token is not one of this server's for this video."),
}


@dataclass(frozen=True)
class Caller:
    """Who sent a request.

    Attributes:
        owner: id of the API key; none for callers without one.
        rate_limit: the key's own limit of submissions.
        max_active_jobs: the key's own limit of queued and running jobs.
        restricted: whether only the owner's jobs may be seen.
        signed_job_id: the job whose files a signed link opens.
    """

    owner: str | None = None
    rate_limit: str | None = None
    max_active_jobs: int | None = None
    restricted: bool = False
    signed_job_id: str | None = None

    def may_see(self, record: JobRecord) -> bool:
        """Whether the job is the caller's."""
        if not self.restricted or record.id == self.signed_job_id:
            return True
        return self.owner is not None and record.owner == self.owner


class AccessControl:
    """ASGI middleware that puts the `Caller` into the request's state, or refuses."""

    def __init__(self, app: ASGIApp, settings: ServerSettings) -> None:
        self._app = app
        self._settings = settings
        self._known_open = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102 - ASGI
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        found: Caller | Response
        if scope["path"] in _OPEN or scope["path"].startswith(_OPEN_FOLDERS):
            found = Caller(restricted=True)
        else:
            try:
                found = await self._identify(scope)
            except RedisError as error:
                # Operators want to see that Redis is away; with keys in use, nobody can tell who asks.
                watching = scope["path"] == "/metrics" and self._known_open
                found = Caller() if watching else on_redis_error(Request(scope), error)
        if isinstance(found, Caller):
            scope.setdefault("state", {})["caller"] = found
            await self._app(scope, receive, send)
        else:
            await found(scope, receive, send)

    async def _identify(self, scope: Scope) -> Caller | Response:
        redis = scope["app"].state.access_redis
        connection = HTTPConnection(scope)
        token = _bearer_token(Headers(scope=scope).get("authorization", ""))
        link = _signed_link(scope)
        if link is not None and token is None:
            return await _check_link(redis, connection, *link)
        value, in_use = await _look_up(redis, token)
        self._known_open = not in_use and not self._settings.needs_keys
        if value is not None:
            key = ApiKey.model_validate_json(value)
            most = key.max_active_jobs or self._settings.max_active_jobs
            return Caller(key.id, key.rate_limit or self._settings.rate_limit, most, restricted=True)
        if in_use or self._settings.needs_keys:
            return _unauthorized(connection, token)
        forgery = find_forgery(scope, self._settings.cors_origins, self._settings.allowed_hosts)
        if forgery is not None:
            return problem(connection, 403, forgery.code, forgery.detail)
        return Caller()


async def _look_up(redis: Any, token: str | None) -> tuple[bytes | None, bool]:
    """The token's key, and whether keys are in use."""
    async with redis.pipeline(transaction=False) as pipeline:
        pipeline.hget(API_KEYS, digest(token or ""))
        pipeline.exists(KEYS_IN_USE)
        value, in_use = await pipeline.execute()
    return value, bool(in_use)


async def _check_link(redis: Any, connection: HTTPConnection, job_id: str, token: str) -> Caller | Response:
    secret = await redis.get(SIGNING_SECRET)
    verdict = verify(secret.decode(), token, job_id) if secret else "invalid"
    if verdict == "valid":
        return Caller(restricted=True, signed_job_id=job_id)
    return problem(connection, 403, *_LINK_PROBLEMS[verdict])


def _unauthorized(connection: HTTPConnection, token: str | None) -> Response:
    headers = {"WWW-Authenticate": "Bearer"}
    if token is None:
        detail = "An API key is needed: send `Authorization: Bearer KEY`; `ripple keys create NAME` makes one."
        return problem(connection, 401, "unauthorized", detail, headers=headers)
    detail = "This API key is not known here or has been revoked."
    return problem(connection, 401, "invalid_api_key", detail, headers=headers)


def _bearer_token(header: str) -> str | None:
    kind, _, token = header.partition(" ")
    return token.strip() if kind.lower() == "bearer" and token.strip() else None


def _signed_link(scope: Scope) -> tuple[str, str] | None:
    """Job and token of a request for a job's file that brings a token."""
    match = _FILES.fullmatch(scope["path"])
    tokens = parse_qs(scope["query_string"].decode("latin-1")).get("token") if match else None
    if match is None or tokens is None or scope["method"] not in ("GET", "HEAD"):
        return None
    return match[1] or match[2], tokens[0]
