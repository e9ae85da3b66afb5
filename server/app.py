"""Puts the API together."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi_offline import FastAPIOffline
from redis import Redis
from redis import asyncio as async_redis
from starlette.middleware.cors import CORSMiddleware

from ripple_core.contract.connect import connect
from ripple_core.contract.estimate import Estimator
from ripple_core.contract.model_config import load_model_configs
from ripple_core.contract.queue import JobQueue
from ripple_core.contract.retention import ServingMarks
from ripple_core.contract.store import JobStore
from ripple_core.contract.submission import Submissions
from ripple_core.contract.videos import open_video_store
from ripple_core.versions import versions
from server.access import DOCS_FILES, AccessControl
from server.errors import install_error_handlers
from server.event_stream import HEARTBEAT_SECONDS
from server.examples import answers
from server.guard import BodyLimit
from server.job_collector import JobCollector
from server.metrics import RequestMetrics, process_registry
from server.openapi_bodies import describe_webhooks, schemas
from server.rate_limit import RateLimiter
from server.request_context import REQUEST_ID_HEADER, RequestContext, is_quiet
from server.routes import events, generate, jobs, links, models, openai_videos, ops, system
from server.service import JobService
from server.settings import ServerSettings
from server.studio import install_studio

_DESCRIPTION = "Text-to-video generation with TimeRipple attention reuse; every result says what it saved."

_CORS: dict[str, Any] = {
    "allow_methods": ["GET", "HEAD", "POST", "DELETE"],
    "allow_headers": [
        *("Authorization", "Content-Type", "Idempotency-Key", "Prefer", "Last-Event-ID", "Range"),
        *(REQUEST_ID_HEADER, "traceparent"),
    ],
    "expose_headers": [
        *("Location", "Retry-After", "RateLimit", "RateLimit-Policy", "Content-Range", "ETag"),
        REQUEST_ID_HEADER,
    ],
}

# Each open event stream holds a connection to Redis; redis-py's own limit is 100.
_MAX_STREAMS = 1000
# Who calls is looked up on connections of its own: streams, however many, must not lock others out.
_ACCESS_CONNECTIONS = 32
_ACCESS_SECONDS = 5
# Then clients are told that the job store is away.
_REDIS_SECONDS = 3.0
# A scrape may take five seconds in all.
_SCRAPE_SECONDS = 1.0


def create_app(settings: ServerSettings) -> FastAPI:
    """The application; it connects to Redis when it starts up.

    Raises:
        ValueError: at start-up, when no Redis is configured.
        UnknownModel: at start-up, when a configured model is not known, or the file of models is wrong.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        if settings.redis_url is None:
            raise ValueError("REDIS_URL is not set; `ripple serve` sets it to the embedded Redis")
        redis = connect(settings.redis_url, _REDIS_SECONDS)
        app.state.service = _service(redis, settings)
        app.state.rate_limiter = RateLimiter(redis)
        scraped = connect(settings.redis_url, _SCRAPE_SECONDS, retries=0)
        models = [config.spec.id for config in app.state.service.models]
        registry.register(JobCollector(scraped, models, settings.data_dir))
        # Its reads wait for events, so they must not time out before the wait does.
        app.state.async_redis = async_redis.Redis.from_url(
            settings.redis_url, socket_timeout=2 * HEARTBEAT_SECONDS, max_connections=_MAX_STREAMS
        )
        app.state.access_redis = async_redis.Redis.from_pool(
            async_redis.BlockingConnectionPool.from_url(
                settings.redis_url,
                max_connections=_ACCESS_CONNECTIONS,
                timeout=_ACCESS_SECONDS,
                socket_timeout=_ACCESS_SECONDS,
            )
        )
        yield
        await app.state.access_redis.aclose()
        await app.state.async_redis.aclose()
        redis.close()

    # Its documentation page loads nothing from other sites.
    app = FastAPIOffline(
        redoc_url=None,
        static_url=DOCS_FILES,
        title="TimeRipple",
        version=versions()["timeripple"],
        description=_DESCRIPTION,
        lifespan=lifespan,
        # Its spans are one for each request, where a tracer is configured; its logs would have what was sent.
        telemetry={
            "auto_configure": False,
            "operation_spans": False,
            "logs": False,
            "metrics": False,
            "exclude": is_quiet,
        },
    )
    app.state.settings = settings
    registry = app.state.metrics_registry = process_registry()
    # The last one added sees a request first. CORS comes before all that refuses, so that pages can read why.
    app.add_middleware(AccessControl, settings=settings)
    app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes)
    if settings.cors_origins:
        app.add_middleware(CORSMiddleware, allow_origins=settings.cors_origins, **_CORS)
    app.add_middleware(RequestMetrics, registry=registry)
    app.add_middleware(RequestContext)
    install_error_handlers(app)
    for module in (generate, jobs, events, links, models, openai_videos, system, ops):
        app.include_router(module.router)
    install_studio(app)
    describe_webhooks(app)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


def _service(redis: Redis, settings: ServerSettings) -> JobService:
    store, queue = JobStore(redis), JobQueue(redis)
    return JobService(
        store=store,
        queue=queue,
        submissions=Submissions(redis, store, queue, settings.max_queued_jobs, settings.max_queued_seconds),
        estimator=Estimator(redis),
        videos=open_video_store(settings),
        serving=ServingMarks(redis),
        models=tuple(load_model_configs(settings)),
        lora_dir=settings.lora_dir,
        webhook_allow=settings.webhook_allow,
        log_prompts=settings.log_prompts,
    )


def _openapi(app: FastAPI) -> dict[str, Any]:
    """FastAPI's document with the bodies and errors that it does not see, in place of its own validation errors."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title,
            version=app.version,
            description=app.description,
            routes=app.routes,
            webhooks=app.webhooks.routes,
        )
        document["components"]["schemas"] |= schemas()
        for name, examples in answers().items():
            document["components"]["schemas"][name]["examples"] = examples
        key = {"type": "http", "scheme": "bearer", "description": "An API key, where keys are in use."}
        document["components"]["securitySchemes"] = {"ApiKey": key}
        document["security"] = [{"ApiKey": []}, {}]
        # FastAPI's own errors, and a part of models that no answer shows.
        for name in ("HTTPValidationError", "ValidationError", "Architecture"):
            document["components"]["schemas"].pop(name, None)
        app.openapi_schema = document
    return app.openapi_schema
