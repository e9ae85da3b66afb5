"""One POST to a host that nobody vouches for: checked where the connection is made, and over in bounded time."""

import re
import socket
import ssl
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import httpcore
import httpx

from ripple_core.contract.addresses import AddressRefused, AllowList, Resolver
from ripple_core.contract.webhooks import host_and_port

_CONNECT_SECONDS = 5.0


class PostFailed(Exception):
    """There was no answer; the message says why."""


@dataclass(frozen=True)
class Answer:
    """What the receiver said. Its body is never read."""

    status_code: int
    retry_after_seconds: int


class Poster:
    """Sends POSTs, follows no redirect and uses no proxy.

    Args:
        allow: what may be reached besides public addresses.
        timeout_seconds: most that resolved, connected, sent and answered may take together; the system's resolver
            keeps time for itself.
        resolver: gives the addresses of a name.
    """

    def __init__(self, allow: AllowList, timeout_seconds: float = 10.0, resolver: Resolver = socket.getaddrinfo):
        self._allow = allow
        self._timeout_seconds = timeout_seconds
        self._resolver = resolver
        self._tls = httpx.create_ssl_context()

    def post(self, url: str, headers: dict[str, str], body: bytes) -> Answer:
        """Send and return the answer, whatever its status.

        Raises:
            PostFailed: when there was none, or the address may not be reached.
        """
        parsed = httpx.URL(url)
        host, port = host_and_port(parsed)
        target = httpcore.URL(scheme=parsed.raw_scheme, host=host.encode(), port=port, target=parsed.raw_path)
        seconds = self._timeout_seconds
        timeouts = {"connect": min(_CONNECT_SECONDS, seconds), "read": seconds, "write": seconds, "pool": seconds}
        network = _CheckedNetwork(self._allow, self._resolver, time.monotonic() + seconds)
        try:
            # A pool for one request: a connection that is kept would outlive the check of its address.
            with (
                httpcore.ConnectionPool(ssl_context=self._tls, network_backend=network) as pool,
                pool.stream(
                    "POST", target, headers=list(headers.items()), content=body, extensions={"timeout": timeouts}
                ) as answer,
            ):
                return Answer(answer.status, _retry_after_seconds(answer.headers))
        except AddressRefused as error:
            raise PostFailed(str(error)) from error
        except httpcore.TimeoutException as error:
            raise PostFailed(f"no answer within {seconds:g} s") from error
        except httpcore.ConnectError as error:
            raise PostFailed(f"no connection: {error}") from error
        # Not with the error's own text, which may quote whatever the other side speaks.
        except httpcore.ProtocolError as error:
            raise PostFailed("the answer was no HTTP") from error
        except httpcore.NetworkError as error:
            raise PostFailed("the connection broke before the answer") from error


class _CheckedNetwork(httpcore.NetworkBackend):
    """Connects to the very addresses it has resolved and checked, so that a name cannot change its mind in between."""

    def __init__(self, allow: AllowList, resolver: Resolver, ends_at: float) -> None:
        self._allow = allow
        self._resolver = resolver
        self._ends_at = ends_at
        self._sockets = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Try one address after the other."""
        failure: Exception | None = None
        for address in self._allow.resolve(host, port, self._resolver):
            left = _left(self._ends_at, timeout, httpcore.ConnectTimeout)
            try:
                stream = self._sockets.connect_tcp(address, port, left, local_address, socket_options)
                return _BoundedStream(stream, self._ends_at)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        assert failure is not None
        raise failure


class _BoundedStream(httpcore.NetworkStream):
    """Ends at its time, also for a receiver that sends a byte now and then."""

    def __init__(self, stream: httpcore.NetworkStream, ends_at: float) -> None:
        self._stream = stream
        self._ends_at = ends_at

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """As the stream does."""
        return self._stream.read(max_bytes, _left(self._ends_at, timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """As the stream does."""
        self._stream.write(buffer, _left(self._ends_at, timeout, httpcore.WriteTimeout))

    def close(self) -> None:
        """As the stream does."""
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        """As the stream does; the certificate is checked for the host's name, not for its address."""
        left = _left(self._ends_at, timeout, httpcore.ConnectTimeout)
        return _BoundedStream(self._stream.start_tls(ssl_context, server_hostname, left), self._ends_at)

    def get_extra_info(self, info: str) -> Any:
        """As the stream does."""
        return self._stream.get_extra_info(info)


def _left(ends_at: float, timeout: float | None, error: type[httpcore.TimeoutException]) -> float:
    left = ends_at - time.monotonic()
    if left <= 0:
        raise error
    return left if timeout is None else min(left, timeout)


def _retry_after_seconds(headers: list[tuple[bytes, bytes]]) -> int:
    for name, value in headers:
        # Nine digits: more than any wait that is honoured. The form with a date is not read.
        if name.lower() == b"retry-after" and re.fullmatch(rb"\d{1,9}", value):
            return int(value)
    return 0
