"""Prometheus metrics of this process and its requests."""

import time

from prometheus_client import CollectorRegistry, Counter, Histogram, Info
from prometheus_client.process_collector import ProcessCollector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ripple_core.versions import versions

# Clients may send any word as a method; labels must stay few.
_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}


def process_registry() -> CollectorRegistry:
    """A registry that tells what runs in this process, and its memory and CPU time."""
    registry = CollectorRegistry()
    Info("timeripple_build", "Versions of what runs.", registry=registry).info(versions())
    ProcessCollector("timeripple_server", registry=registry)
    return registry


class RequestMetrics:
    """ASGI middleware: counts and times requests by route template, never by job id."""

    def __init__(self, app: ASGIApp, registry: CollectorRegistry) -> None:
        self._app = app
        labels = ["method", "route", "status"]
        self._requests = Counter("timeripple_http_requests", "Requests answered.", labels, registry=registry)
        self._seconds = Histogram(
            "timeripple_http_request_seconds",
            "Time to the first byte of the answer.",
            labels,
            registry=registry,
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102 - ASGI
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.monotonic()
        answered = False

        async def count(message: Message) -> None:
            nonlocal answered
            if message["type"] == "http.response.start":
                answered = True
                self._count(scope, message["status"], time.monotonic() - began)
            await send(message)

        try:
            await self._app(scope, receive, count)
        except Exception:
            # What no handler knew is answered further out, where it cannot be counted.
            if not answered:
                self._count(scope, 500, time.monotonic() - began)
            raise

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        method = scope["method"] if scope["method"] in _METHODS else "other"
        route = getattr(scope.get("route"), "path", "unknown")
        self._requests.labels(method, route, status).inc()
        self._seconds.labels(method, route, status).observe(seconds)
