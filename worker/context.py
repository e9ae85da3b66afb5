"""What a running worker works with."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import tenacity
from redis import RedisError

from ripple_core.contract.estimate import Estimator
from ripple_core.contract.model_config import ModelConfig
from ripple_core.contract.queue import JobQueue
from ripple_core.contract.store import JobStore
from ripple_core.contract.videos import VideoStore
from worker.engine import Engine
from worker.metrics import WorkerMetrics
from worker.reports import Reports
from worker.settings import WorkerSettings
from worker.shutdown import Shutdown
from worker.status import WorkerStatus

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class WorkerContext:
    """Made once for each worker process.

    Attributes:
        settings: of the worker.
        models: whose jobs it takes, by id.
        store: of the records.
        reports: progress, on connections that give up soon.
        queue: of the messages.
        videos: where finished videos go.
        estimator: remembers what jobs took.
        engine: the process that owns the device.
        status: what the worker is at.
        shutdown: whether it is about to end.
        metrics: what it measures, for Prometheus.
    """

    settings: WorkerSettings
    models: dict[str, ModelConfig]
    store: JobStore
    reports: Reports
    queue: JobQueue
    videos: VideoStore
    estimator: Estimator
    engine: Engine
    status: WorkerStatus
    shutdown: Shutdown
    metrics: WorkerMetrics

    def until_redis_answers(self, call: Callable[[], _Result]) -> _Result:
        """Call again until Redis answers, however long that takes: what a job came to must not get lost.

        Raises:
            redis.RedisError: when the worker has to end.
        """
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(RedisError),
            wait=tenacity.wait_random_exponential(multiplier=0.1, max=2.0),
            stop=lambda _: self.shutdown.waits_no_longer,
            sleep=tenacity.sleep_using_event(self.shutdown.now),
            reraise=True,
        )
        return retrying(call)
