"""How many jobs a second one Redis and one worker carry through their whole life, with few and with many waiting.

The worker is the real one in a process of its own, but for its pipeline, which makes an empty file at once
(`python -m worker.no_op`). RQ's own worker on functions that do nothing is the yardstick, on the same Redis.
"""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field
from redis import Redis
from rq import Queue

from ripple_core.contract.estimate import Estimator
from ripple_core.contract.job import JobRecord, JobStatus, new_job_id, utc_now
from ripple_core.contract.models import find_model
from ripple_core.contract.queue import JobQueue
from ripple_core.contract.request import GenerateRequest
from ripple_core.contract.retention import Retention
from ripple_core.contract.settings import SharedSettings
from ripple_core.contract.store import JobStore
from ripple_core.contract.submission import Submissions
from ripple_core.contract.upkeep import Upkeep
from ripple_core.contract.validate import resolve
from ripple_core.contract.videos import open_video_store

# Jobs before the clock starts: the worker has to import and connect first.
_RUN_IN_JOBS = 100
_BATCH_JOBS = 100
_SLICE_JOBS = 200
_READS = 20
_POLL_SECONDS = 0.005
_STALL_SECONDS = 60.0
_STOP_SECONDS = 30.0
# A no-op that every worker can import.
_NOTHING = "time.monotonic"


class PerSecond(BaseModel):
    """Jobs a second of one worker, over slices of so many jobs: what else the machine does slows some of them."""

    median: float
    fastest: float


class QueuedLevel(BaseModel):
    """With so many jobs waiting all the time."""

    queued: int = Field(description="Jobs that stay behind the measured ones.")
    submitted_per_second: float = Field(description="One at a time, by one process, without HTTP.")
    jobs: PerSecond = Field(description="From the queue to the end, with the no-op pipeline.")
    plain_rq: PerSecond = Field(description="RQ's own worker on no-op functions, right before.")
    redis_cpu_ms: float = Field(description="Time on a core that a job takes in Redis; it uses one core.")
    files_ms: float = Field(description="Flushing a job's three empty files to the disk; median.")
    bytes_per_queued_job: float | None = Field(description="Of Redis's memory; null where none are left behind.")
    upkeep_s: float = Field(description="A round of upkeep that compares all queued jobs with all messages.")
    place_ms: float = Field(description="Estimating the wait of a job that would come now; median.")
    page_ms: float = Field(description="Fifty queued jobs from the newest on; median.")


class LoadReport(BaseModel):
    """All levels, on one Redis."""

    measured_jobs: int = Field(description="Timed at each level.")
    slice_jobs: int = Field(description="Timed together.")
    levels: list[QueuedLevel]


def measure_load(
    url: str,
    data_dir: Path,
    queued: Sequence[int],
    measured_jobs: int = 1000,
    on_level: Callable[[QueuedLevel], None] = lambda _: None,
) -> LoadReport:
    """Fill the queue to each level in turn, and run jobs there.

    Args:
        url: of an empty Redis.
        data_dir: for the empty videos.
        queued: how many jobs are to stay waiting, in rising order.
        measured_jobs: run at each level.
        on_level: called with each level's figures.

    Raises:
        RuntimeError: when the worker ends by itself or does not get on.
    """
    levels = []
    # An embedded Redis runs on for as long as it has clients.
    with Redis.from_url(url) as redis:
        bench = _Bench(redis, url, data_dir, measured_jobs)
        for target in queued:
            levels.append(bench.level(target))
            on_level(levels[-1])
    return LoadReport(measured_jobs=measured_jobs, slice_jobs=min(_SLICE_JOBS, measured_jobs), levels=levels)


class _Bench:
    def __init__(self, redis: Redis, url: str, data_dir: Path, measured_jobs: int) -> None:
        self._url = url
        self._settings = SharedSettings(redis_url=url, data_dir=data_dir, store_url=None)
        self._measured_jobs = measured_jobs
        self._redis = redis
        self._store, self._queue = JobStore(self._redis), JobQueue(self._redis)
        self._estimator = Estimator(self._redis)
        self._submissions = Submissions(self._redis, self._store, self._queue, sys.maxsize, float("1e12"))
        self._spec = find_model("builtin")
        self._request = resolve(GenerateRequest(prompt="a red circle", seed=1), self._spec)

    def level(self, target: int) -> QueuedLevel:
        plain = self._plain_rq()
        more = target - self._num_queued()
        memory, began_with = self._used_memory(), self._num_queued()
        for at in range(0, more, _BATCH_JOBS):
            self._submit(min(_BATCH_JOBS, more - at))
        added = self._num_queued() - began_with
        num_bytes = (self._used_memory() - memory) / added if added else None
        submitted = self._submit_rate(self._measured_jobs + _RUN_IN_JOBS)
        upkeep_s = self._upkeep_seconds()
        place_ms = _median_ms(lambda: self._store.place(""))
        page_ms = _median_ms(lambda: self._store.page(JobStatus.QUEUED, None, 50))
        cpu, done = self._redis_cpu_seconds(), self._num_succeeded()
        jobs = self._drain()
        redis_seconds = (self._redis_cpu_seconds() - cpu) / (self._num_succeeded() - done)
        return QueuedLevel(
            queued=target,
            submitted_per_second=submitted,
            jobs=jobs,
            plain_rq=plain,
            redis_cpu_ms=redis_seconds * 1000,
            files_ms=self._files_ms(),
            bytes_per_queued_job=num_bytes,
            upkeep_s=upkeep_s,
            place_ms=place_ms,
            page_ms=page_ms,
        )

    def _submit(self, num_jobs: int) -> None:
        """As the API does, a batch in one step."""
        estimate = self._estimator.estimate(self._spec, self._request)
        ids = sorted(new_job_id() for _ in range(num_jobs))
        seconds = estimate.seconds if estimate else None
        records = [
            JobRecord(id=job_id, created_at=utc_now(), request=self._request, estimated_s=seconds) for job_id in ids
        ]
        self._submissions.submit(records, max_active=None, key=None)

    def _submit_rate(self, num_jobs: int) -> float:
        began = time.monotonic()
        for _ in range(num_jobs):
            self._submit(1)
        return num_jobs / (time.monotonic() - began)

    def _drain(self) -> PerSecond:
        before = self._num_succeeded()
        environment = {"REDIS_URL": self._url, "RIPPLE_DATA_DIR": str(self._settings.data_dir)}
        with _running(["-m", "worker.no_op"], environment | {"RIPPLE_LOG_LEVEL": "WARNING"}) as process:
            return _rate(process, lambda: self._num_succeeded() - before, self._measured_jobs)

    def _plain_rq(self) -> PerSecond:
        # Another database of the same server: what else it holds may cost time, but must not be taken for work.
        url = f"{self._url}?db=1"
        num_jobs = self._measured_jobs + _RUN_IN_JOBS
        worker = ["-m", "rq.cli", "worker", "--quiet", "--worker-class", "rq.SimpleWorker", "--url", url]
        with Redis.from_url(url) as redis:
            redis.flushdb()
            queue = Queue(connection=redis)
            queue.enqueue_many([Queue.prepare_data(_NOTHING) for _ in range(num_jobs)])
            with _running(worker, {}) as process:
                return _rate(process, lambda: num_jobs - queue.count, self._measured_jobs)

    def _upkeep_seconds(self) -> float:
        retention = Retention(self._store, open_video_store(self._settings), self._settings)
        # Once a minute, and about videos, not about the queue.
        retention.run_if_due(time.time())
        name, turn = "bench", timedelta(seconds=1)
        upkeep = Upkeep(self._store, self._queue, retention, 3, name, turn)
        # A worker that has ended has it for a moment yet.
        while not self._store.take_upkeep(name, turn):
            time.sleep(0.1)
        began = time.monotonic()
        upkeep.run()
        return time.monotonic() - began

    def _num_queued(self) -> int:
        return self._store.counts()[JobStatus.QUEUED]

    def _num_succeeded(self) -> int:
        return self._store.counts()[JobStatus.SUCCEEDED]

    def _files_ms(self) -> float:
        newest = self._store.page(JobStatus.SUCCEEDED, None, self._measured_jobs)
        return statistics.median(record.metrics.latency_s.store for record in newest if record.metrics) * 1000

    def _redis_cpu_seconds(self) -> float:
        info: Any = self._redis.info("cpu")
        return float(info["used_cpu_user"] + info["used_cpu_sys"])

    def _used_memory(self) -> int:
        info: Any = self._redis.info("memory")
        return int(info["used_memory"])


@contextmanager
def _running(arguments: list[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    # What configures a deployment here is not for its workers.
    own = {name: value for name, value in os.environ.items() if not name.startswith("RIPPLE_")}
    process = subprocess.Popen([sys.executable, *arguments], env=own | environment, start_new_session=True)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(timeout=_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _rate(process: subprocess.Popen[bytes], num_done: Callable[[], int], num_jobs: int) -> PerSecond:
    """Jobs a second over some `num_jobs`, once the process has run in."""
    done, at = _wait_for(process, num_done, _RUN_IN_JOBS)
    # More may have been done by then; there need not be more to do than was asked for.
    last, rates = _RUN_IN_JOBS + num_jobs, []
    while done < last:
        before, began = done, at
        done, at = _wait_for(process, num_done, min(before + _SLICE_JOBS, last))
        rates.append((done - before) / (at - began))
    return PerSecond(median=statistics.median(rates), fastest=max(rates))


def _wait_for(process: subprocess.Popen[bytes], num_done: Callable[[], int], least: int) -> tuple[int, float]:
    seen, seen_at = -1, time.monotonic()
    while (done := num_done()) < least:
        if process.poll() is not None:
            raise RuntimeError(f"The worker ended with exit code {process.returncode}; its log above says why.")
        now = time.monotonic()
        if done > seen:
            seen, seen_at = done, now
        elif now - seen_at > _STALL_SECONDS:
            raise RuntimeError(f"The worker has run {done} of {least} jobs and does not get on.")
        time.sleep(_POLL_SECONDS)
    return done, time.monotonic()


def _median_ms(call: Callable[[], object]) -> float:
    seconds = []
    for _ in range(_READS):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds) * 1000
