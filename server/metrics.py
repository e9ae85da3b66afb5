"""Prometheus metrics: this process's requests, and the job store read at each scrape."""

import logging
import time
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from redis import RedisError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ripple_core.contract.job import JobStatus, accepted_at
from server.service import JobService

logger = logging.getLogger(__name__)

# Clients may send any word as a method; labels must stay few.
_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}


class JobCollector(Collector):
    """Reads the job store when scraped, so that every API process shows the same figures."""

    def __init__(self, service: JobService) -> None:
        self._service = service

    def collect(self) -> Iterable[Metric]:
        """Yield the metrics; only `timeripple_redis_up` 0 when Redis cannot be reached."""
        up = GaugeMetricFamily("timeripple_redis_up", "1 when the job store answers.")
        try:
            metrics = self._read()
            up.add_metric([], 1)
        except RedisError as error:
            logger.warning("metrics without the job store: %s", error)
            metrics = []
            up.add_metric([], 0)
        return [up, *metrics]

    def _read(self) -> list[Metric]:
        store = self._service.store
        jobs = GaugeMetricFamily("timeripple_jobs", "Stored jobs by status.", labels=["status"])
        for status, count in store.counts().items():
            jobs.add_metric([status], count)
        queued = store.ids(JobStatus.QUEUED)
        age = time.time() - accepted_at(queued[0]) if queued else 0.0
        gauges = {
            "timeripple_oldest_queued_age_seconds": ("Age of the oldest queued job.", age),
            "timeripple_queue_length": ("Messages no worker has taken yet.", self._service.queue.num_messages()),
            "timeripple_live_workers": ("Workers with a fresh heartbeat.", len(store.live_workers())),
        }
        totals = store.totals()
        return [
            jobs,
            *(GaugeMetricFamily(name, text, value=value) for name, (text, value) in gauges.items()),
            *(
                CounterMetricFamily(f"timeripple_{name}", f"{name.replace('_', ' ')}, all finished jobs.", value=value)
                for name, value in totals.items()
            ),
        ]


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
