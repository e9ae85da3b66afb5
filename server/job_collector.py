"""What Redis knows of jobs, queues and workers, read at each scrape: every API process shows the same figures.

Dashboards therefore take the maximum over API processes, never the sum.
"""

import logging
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from redis import Redis, RedisError

from ripple_core.contract import counters
from ripple_core.contract.counters import Count
from ripple_core.contract.queue import PRIORITIES, JobQueue, oldest_ages_s
from ripple_core.contract.store import JobStore
from ripple_core.contract.workers import WorkerInfo

logger = logging.getLogger(__name__)

_STATES = ("starting", "idle", "busy", "draining")
# Counters of the store: what they count, and their labels beside the model.
_COUNTERS: dict[str, tuple[str, list[str]]] = {
    "jobs_ended": ("Jobs that came to an end.", ["status", "error_code"]),
    "attempts_failed": ("Starts of jobs that were lost and came again.", ["error_code"]),
    "second_tries": ("Second tries within an attempt that succeeded.", ["reason", "remedy"]),
    "attention_jobs": ("Succeeded jobs by what ran their attention.", ["mode", "backend"]),
    "attention_fallback_calls": ("Attention calls that ran dense although reuse was asked for.", ["reason"]),
    "attention_dense_flops": ("FLOPs that stock attention takes.", ["aggressiveness"]),
    "attention_executed_flops": ("FLOPs left after reuse.", ["aggressiveness"]),
    "denoise_seconds": ("Time of denoising; that of a batch counts once.", ["aggressiveness"]),
    "estimated_denoise_seconds": ("The same of jobs with an estimate of it without reuse.", ["aggressiveness"]),
    "dense_denoise_estimate_seconds": (
        "That estimate: steps x the lower median of the job's own dense steps, or its dense twin's time.",
        ["aggressiveness"],
    ),
    "video_seconds": ("Length of the videos.", ["aggressiveness"]),
}


class JobCollector(Collector):
    """Reads the job store when scraped.

    Args:
        redis: a connection that gives up before Prometheus does.
        models: ids of this server's.
        data_dir: whose disk is told of.
    """

    def __init__(self, redis: Redis, models: Sequence[str], data_dir: Path) -> None:
        self._store = JobStore(redis)
        self._queue = JobQueue(redis)
        self._models = models
        self._data_dir = data_dir

    def collect(self) -> Iterable[Metric]:
        """Yield the metrics; without those of the store, and `timeripple_redis_up` 0, when Redis cannot be reached."""
        yield from _disk(self._data_dir)
        try:
            metrics = self._read()
        except RedisError as error:
            logger.warning("metrics without the job store: %s", error)
            yield _gauge("redis_up", "1 when the job store answers.", 0)
            return
        yield _gauge("redis_up", "1 when the job store answers.", 1)
        yield from metrics

    def _read(self) -> list[Metric]:
        store = self._store
        num_queued, queued_ms = store.queued_work()
        statuses: dict[tuple[str, ...], float] = {(status,): count for status, count in store.counts().items()}
        return [
            _by_label("jobs", "Stored jobs by status.", ["status"], statuses),
            _gauge("queued_jobs", "Jobs that wait for a worker.", num_queued),
            _gauge("queued_work_seconds", "What these take on one worker, as far as estimated.", queued_ms / 1000),
            *self._queues(),
            *self._workers(store.workers()),
            *self._counters(store.counters()),
        ]

    def _queues(self) -> list[Metric]:
        queue, models = self._queue, self._models
        labels: list[tuple[str, ...]] = [(model, priority) for priority in PRIORITIES for model in models]
        queues = queue.of(models)
        ages = [age or 0.0 for age in oldest_ages_s(queues, time.time())]
        lengths = queue.num_messages_by_queue()
        waiting = {label: lengths.get(one.name, 0) for label, one in zip(labels, queues, strict=True)}
        names = ["model", "priority"]
        return [
            _by_label("queue_messages", "Messages that no worker has taken yet.", names, waiting),
            _by_label(
                "queue_oldest_age_seconds", "Age of the job at the head.", names, dict(zip(labels, ages, strict=True))
            ),
        ]

    def _workers(self, workers: list[WorkerInfo]) -> list[Metric]:
        states = Counter[str](worker.state for worker in workers)
        models = self._models
        loaded = Counter(model for worker in workers for model in worker.loaded)
        serving = Counter(model for worker in workers if worker.takes_jobs for model in worker.models)
        return [
            _by_label("workers", "Live workers by what they are at.", ["state"], {(s,): states[s] for s in _STATES}),
            _by_label(
                "model_workers",
                "Live workers that take the model's jobs.",
                ["model"],
                {(m,): serving[m] for m in models},
            ),
            _by_label(
                "model_loaded_workers", "Those that have it in memory.", ["model"], {(m,): loaded[m] for m in models}
            ),
        ]

    def _counters(self, stored: list[Count]) -> Iterable[Metric]:
        zeros = [count for model in self._models for count in counters.from_zero(model)]
        families = {
            name: CounterMetricFamily(f"timeripple_{name}", text, labels=["model", *labels])
            for name, (text, labels) in _COUNTERS.items()
        }
        amounts = {(count.name, tuple(sorted(count.labels.items()))): count.amount for count in (*zeros, *stored)}
        for (name, labels), amount in amounts.items():
            values = dict(labels)
            # Other versions may have counted other things.
            if name in families and values.keys() == {"model", *_COUNTERS[name][1]}:
                families[name].add_metric([values[label] for label in ("model", *_COUNTERS[name][1])], amount)
        return families.values()


def _disk(folder: Path) -> Iterable[Metric]:
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        # With videos in S3 nobody may have made it; a mount may be gone.
        return
    yield _gauge("data_free_bytes", "Free on the disk of the data folder.", usage.free)
    yield _gauge("data_size_bytes", "Size of that disk.", usage.total)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"timeripple_{name}", text, value=value)


def _by_label(name: str, text: str, labels: list[str], values: Mapping[tuple[str, ...], float]) -> Metric:
    family = GaugeMetricFamily(f"timeripple_{name}", text, labels=labels)
    for key, value in values.items():
        family.add_metric(list(key), value)
    return family
