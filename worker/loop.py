"""A worker's life: heartbeat, upkeep and RQ's loop. This process never touches the device."""

import logging
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from threading import Event, Thread
from types import FrameType

from redis import Redis, RedisError
from redis.backoff import ExponentialBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry
from rq import SimpleWorker
from rq.serializers import JSONSerializer

from ripple_core.contract.estimate import Estimator
from ripple_core.contract.models import find_model
from ripple_core.contract.queue import JobQueue
from ripple_core.contract.retention import Retention
from ripple_core.contract.store import JobStore
from ripple_core.contract.upkeep import Upkeep
from ripple_core.contract.videos import open_video_store
from worker.engine import Engine
from worker.settings import WorkerSettings
from worker.task import CurrentExecution, WorkerContext, set_context
from worker.webhooks import WebhookDeliverer, signed_video_link, start_deliverers

logger = logging.getLogger(__name__)


class _RippleWorker(SimpleWorker):
    """RQ's in-process worker; the device's process is the engine's child, so nothing is forked per job."""

    shutting_down: Event

    def request_stop(self, signum: int, frame: FrameType | None) -> None:
        """SIGTERM or Ctrl-C: stop the job after its denoising step and give it back to the queue."""
        self.shutting_down.set()
        super().request_stop(signum, frame)

    def request_force_stop(self, signum: int, frame: FrameType | None) -> None:
        """A second signal changes nothing: stopping is bounded by the cancel grace already."""


def run_worker(settings: WorkerSettings) -> None:
    """Work until SIGTERM or Ctrl-C.

    Raises:
        ValueError: when no Redis is configured.
        redis.RedisError: when it cannot be reached at start.
    """
    if settings.redis_url is None:
        raise ValueError("REDIS_URL is not set; `ripple worker` sets it to the embedded Redis")
    # Short outages of Redis must not end a job that takes minutes.
    retry = Retry(ExponentialBackoff(cap=2.0, base=0.05), retries=20)
    redis = Redis.from_url(settings.redis_url, retry=retry, retry_on_error=[RedisConnectionError, RedisTimeoutError])
    redis.ping()
    name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(2)}"
    store, queue = JobStore(redis), JobQueue(redis)
    videos = open_video_store(settings)
    engine = Engine(settings)
    shutting_down = Event()
    model = find_model(settings.model)
    current = CurrentExecution()
    set_context(WorkerContext(name, store, queue, videos, model, Estimator(redis), engine, shutting_down, current))

    def is_given_up(execution: str) -> bool:
        return execution.startswith(f"{name}/") and execution != current.owner

    upkeep = Upkeep(store, queue, Retention(store, videos, settings), settings.max_attempts, is_given_up)
    deliverer = WebhookDeliverer(store, settings, signed_video_link(redis, settings.link_seconds))
    store.beat(name, timedelta(seconds=settings.lost_after_seconds))
    Thread(target=_beat, args=(store, name, settings, shutting_down), daemon=True).start()
    Thread(target=_keep_up, args=(store, upkeep, name, settings, shutting_down), daemon=True).start()
    start_deliverers(deliverer, shutting_down)
    engine.start()
    worker = _RippleWorker(queue.of([model.id]), name=name, connection=redis, serializer=JSONSerializer)
    worker.shutting_down = shutting_down
    try:
        # RQ tells of every job and poll at INFO; we tell of jobs ourselves.
        worker.work(logging_level="WARNING", with_scheduler=False)
    finally:
        shutting_down.set()
        engine.stop()
        store.forget_worker(name)


def _beat(store: JobStore, name: str, settings: WorkerSettings, ended: Event) -> None:
    """Heartbeat until the worker ends; Redis may come and go."""
    while not ended.wait(settings.heartbeat_seconds):
        with _redis_may_be_away():
            store.beat(name, timedelta(seconds=settings.lost_after_seconds))


def _keep_up(store: JobStore, upkeep: Upkeep, name: str, settings: WorkerSettings, ended: Event) -> None:
    """Upkeep until the worker ends; in a thread of its own, since removing many files may take longer than silence."""
    pause_seconds = settings.heartbeat_seconds
    while not ended.wait(pause_seconds):
        with _redis_may_be_away():
            # Or else, after an outage of Redis, this worker might take itself for dead.
            store.beat(name, timedelta(seconds=settings.lost_after_seconds))
            upkeep.run()
            pause_seconds = settings.lost_after_seconds / 2


@contextmanager
def _redis_may_be_away() -> Iterator[None]:
    try:
        yield
    except RedisError as error:
        logger.warning("Redis cannot be reached: %s", error)
