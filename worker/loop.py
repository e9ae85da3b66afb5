"""A worker's life: its threads, its child process and RQ's loop. This process never touches the device."""

import logging
import os
import secrets
import socket
from datetime import timedelta
from threading import Event

from redis import RedisError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from rq import Queue, SimpleWorker
from rq.exceptions import DequeueTimeout, StopRequested
from rq.job import Job
from rq.serializers import JSONSerializer

from ripple_core.contract.connect import connect
from ripple_core.contract.estimate import Estimator
from ripple_core.contract.model_config import load_model_configs
from ripple_core.contract.queue import JobQueue
from ripple_core.contract.retention import Retention
from ripple_core.contract.store import JobStore
from ripple_core.contract.upkeep import Upkeep
from ripple_core.contract.videos import open_video_store
from ripple_core.metrics_port import open_metrics_port
from worker.child import run_child
from worker.context import WorkerContext
from worker.engine import Child, Engine
from worker.keeper import Keeper
from worker.metrics import WorkerMetrics
from worker.order import QueueOrder
from worker.reports import Reports
from worker.settings import WorkerSettings
from worker.shutdown import Shutdown
from worker.status import WorkerStatus
from worker.task import set_context
from worker.webhooks import WebhookDeliverer, signed_video_link, start_deliverers

logger = logging.getLogger(__name__)

# How long a worker waits for a message before it looks whether it should end, and at the order of the queues.
_POLL_SECONDS = 2
_PAUSE_SECONDS = 1.0
_LEFT_SECONDS = 0.5
# Life of RQ's own heartbeat, from which it takes its time-outs too.
_RQ_SECONDS = 30


def run_worker(settings: WorkerSettings, child: Child = run_child) -> None:
    """Work until SIGTERM or Ctrl-C.

    Args:
        settings: of the worker.
        child: what the process runs that owns the device.

    Raises:
        ValueError: when no Redis is configured, or the port for metrics is taken.
        redis.RedisError: when it cannot be reached at start.
        UnknownModel, ModelsFileInvalid: when a model is not known.
    """
    if settings.redis_url is None:
        raise ValueError("REDIS_URL is not set; `ripple worker` sets it to the embedded Redis")
    context = _context(settings, settings.redis_url, child)
    context.shutdown.listen(context.status.drain)
    keeper = _keeper(context, settings.redis_url)
    keeper.start()
    _start_webhooks(context, settings.redis_url)
    set_context(context)
    try:
        _prepare(context)
        # An open port says that the worker takes jobs.
        open_metrics_port(context.metrics.registry, settings)
        _work(context, settings.redis_url)
    finally:
        context.engine.stop()
        keeper.stop()


def _context(settings: WorkerSettings, redis_url: str, child: Child) -> WorkerContext:
    redis = connect(redis_url)
    models = {config.spec.id: config for config in load_model_configs(settings)}
    name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(2)}"
    status = WorkerStatus(name, settings.device, list(models))
    shutdown = Shutdown(settings.drain_seconds)
    metrics = WorkerMetrics(models)
    engine = Engine(settings, child, status.set_loaded, metrics.engine_lost, shutdown.now.is_set)
    metrics.watch_engine(lambda: engine.pid)
    return WorkerContext(
        settings=settings,
        models=models,
        store=JobStore(redis),
        reports=Reports(JobStore(connect(redis_url, timeout_seconds=1.0, retries=0))),
        queue=JobQueue(redis),
        videos=open_video_store(settings),
        estimator=Estimator(redis),
        engine=engine,
        status=status,
        shutdown=shutdown,
        metrics=metrics,
    )


def _keeper(context: WorkerContext, redis_url: str) -> Keeper:
    store = JobStore(connect(redis_url))
    settings, status = context.settings, context.status
    retention = Retention(store, context.videos, settings)
    # A round may be late.
    turn = timedelta(seconds=3 * settings.heartbeat_seconds)
    upkeep = Upkeep(store, JobQueue(store.redis), retention, settings.max_attempts, status.name, turn)
    return Keeper(store, upkeep, status, settings)


def _start_webhooks(context: WorkerContext, redis_url: str) -> None:
    redis, settings = connect(redis_url), context.settings
    link = signed_video_link(redis, settings.link_seconds)
    deliverer = WebhookDeliverer(JobStore(redis), settings, link, on_attempt=context.metrics.webhook_attempted)
    start_deliverers(deliverer, context.shutdown.draining)


def _prepare(context: WorkerContext) -> None:
    """Start the child; with models to be preloaded, jobs wait until they are."""
    context.engine.start()
    if any(config.preload for config in context.models.values()):
        context.engine.wait_until_ready(context.shutdown.draining.is_set)
    context.status.enter("idle")


def _work(context: WorkerContext, redis_url: str) -> None:
    """RQ's loop, which ends at errors that it does not expect, again and again."""
    status, draining = context.status, context.shutdown.draining
    head_start = context.settings.warm_head_start_seconds
    # RQ changes the time-outs of its connection.
    redis = connect(redis_url)
    order = QueueOrder(
        JobQueue(redis), list(context.models), head_start, lambda: status.loaded, lambda: _loaded_elsewhere(context)
    )
    while not draining.is_set():
        worker = _RippleWorker(
            context.queue.of(context.models),
            name=f"{status.name}-{secrets.token_hex(2)}",
            connection=redis,
            serializer=JSONSerializer,
            worker_ttl=_RQ_SECONDS,
        )
        worker.order, worker.draining = order, draining
        try:
            # RQ tells of every job and poll at INFO; we tell of jobs ourselves.
            worker.work(logging_level="WARNING", with_scheduler=False)
        except RedisError as error:
            logger.warning("Redis cannot be reached: %s", error)
        if not draining.wait(_PAUSE_SECONDS):
            logger.info("the loop over the queues starts again")


def _loaded_elsewhere(context: WorkerContext) -> set[str]:
    own, served = context.status.name, context.models.keys()
    others = (worker for worker in context.store.workers() if worker.takes_jobs and worker.name != own)
    return {model_id for worker in others for model_id in worker.loaded if model_id in served}


class _RippleWorker(SimpleWorker):
    """RQ's in-process worker; the device's process is the engine's child, so nothing is forked for a job."""

    order: QueueOrder
    draining: Event

    def _install_signal_handlers(self) -> None:
        """Signals are ours."""

    def dequeue_job_and_maintain_ttl(
        self, timeout: int | None, max_idle_time: int | None = None
    ) -> tuple[Job, Queue] | None:
        """Wait for a message, in the order of the moment; in short turns, so that no message is lost to a signal."""
        del timeout, max_idle_time
        while not self.draining.is_set():
            try:
                queues = self.order.queues()
                if not queues:
                    self.draining.wait(_LEFT_SECONDS)
                    continue
                taken = Queue.dequeue_any(queues, _POLL_SECONDS, connection=self.connection, serializer=self.serializer)
            except DequeueTimeout:
                # RQ tells by itself after each job.
                self.heartbeat()
                continue
            except (RedisConnectionError, RedisTimeoutError) as error:
                logger.warning("Redis cannot be reached: %s", error)
                self.draining.wait(_PAUSE_SECONDS)
                continue
            if taken is not None:
                taken[0].redis_server_version = self.get_redis_server_version()
                return taken
        raise StopRequested
