"""Refuses what no client of ours sends: bodies without bound, and requests that a foreign web page has made."""

import ipaddress
import re
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.errors import BodyTooLarge, problem

_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
# A name or an address, perhaps with a port.
_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([\w.-]+))(?::\d*)?", re.ASCII | re.IGNORECASE)


class BodyLimit:
    """ASGI middleware: answers 413 before a body that is too large has been read, by its length or as it comes."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102 - ASGI
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        length = Headers(scope=scope).get("content-length", "0")
        if not length.isdecimal():
            refusal = problem(HTTPConnection(scope), 400, "malformed_length", "Content-Length is not a number.")
            await refusal(scope, receive, send)
        elif int(length) > self._max_bytes:
            # The body is not read, so the connection cannot be used again.
            headers = {"Connection": "close"}
            refusal = problem(HTTPConnection(scope), 413, BodyTooLarge.code, self._detail, headers=headers)
            await refusal(scope, receive, send)
        else:
            await self._count(scope, receive, send)

    async def _count(self, scope: Scope, receive: Receive, send: Send) -> None:
        num_bytes = 0

        async def counted() -> Message:
            nonlocal num_bytes
            message = await receive()
            num_bytes += len(message.get("body", b""))
            if num_bytes > self._max_bytes:
                raise BodyTooLarge(self._detail)
            return message

        await self._app(scope, counted, send)

    @property
    def _detail(self) -> str:
        return f"The body has more than {self._max_bytes:,} bytes; send a smaller image."


@dataclass(frozen=True)
class Refusal:
    """Why a request without a key is not served."""

    code: str
    detail: str


def find_forgery(scope: Scope, cors_origins: tuple[str, ...], allowed_hosts: tuple[str, ...]) -> Refusal | None:
    """Why a request may come from a foreign page in a browser on this machine; None when it does not.

    A browser reaches loopback for every page it shows. Such a page may post forms here, or have its own name resolve
    to 127.0.0.1 (DNS rebinding); the first shows in Origin or Sec-Fetch-Site, the second in Host.
    """
    headers = Headers(scope=scope)
    host = headers.get("host", "")
    if not _is_local_name(host, allowed_hosts):
        return Refusal("host_not_allowed", f"Host {host[:100]!r} is not a local name; list it in RIPPLE_ALLOWED_HOSTS.")
    if scope["method"] in _SAFE_METHODS:
        return None
    origin = headers.get("origin")
    cross_site = headers.get("sec-fetch-site") == "cross-site"
    foreign = cross_site if origin is None else origin.partition("://")[2] != host
    if foreign and origin not in cors_origins:
        return Refusal("cross_origin", f"Pages of {origin or 'other sites'} may not call; see RIPPLE_CORS_ORIGINS.")
    return None


def _is_local_name(host: str, allowed: tuple[str, ...]) -> bool:
    """An address, or a name that no public DNS server can hand out: one without a dot."""
    match = _HOST.fullmatch(host)
    if match is None:
        return False
    name = (match[1] or match[2]).lower()
    if name in [one.lower() for one in allowed]:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return "." not in name
    return True
