"""The one function the queue names: runs a job from its record to its end."""

import logging
import secrets
from dataclasses import dataclass
from threading import Event

from redis import RedisError

from ripple_core.contract.errors import JobNotFound, StorageUnavailable
from ripple_core.contract.estimate import Estimator
from ripple_core.contract.job import JobError, JobRecord, Progress, utc_now
from ripple_core.contract.metrics import JobMetrics
from ripple_core.contract.models import ModelSpec
from ripple_core.contract.queue import JobQueue
from ripple_core.contract.store import JobStore
from ripple_core.contract.videos import VideoStore
from worker.engine import Engine
from worker.messages import EndAnswer, Failed, Finished, Generate

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class WorkerContext:
    """What a running worker works with."""

    name: str
    store: JobStore
    queue: JobQueue
    videos: VideoStore
    model: ModelSpec
    estimator: Estimator
    engine: Engine
    shutting_down: Event
    current: "CurrentExecution"


@dataclass
class CurrentExecution:
    """The execution this worker is at, for the thread that looks for lost ones."""

    owner: str | None = None


_context: WorkerContext | None = None


def set_context(context: WorkerContext) -> None:
    """Called once per worker process, before the first job: RQ hands over the job id and nothing else."""
    global _context  # noqa: PLW0603 - the queue calls run_job by name, so its context can only be found here
    _context = context


def run_job(job_id: str) -> None:
    """Claim a job and bring it to an end; called by RQ."""
    assert _context is not None, "set_context was not called"
    execution = secrets.token_hex(8)
    _context.current.owner = f"{_context.name}/{execution}"
    try:
        if not _context.store.claim(job_id, execution, _context.name):
            return
        _Execution(_context, _context.store.get(job_id)).run()
    except JobNotFound:
        logger.info("job %s was deleted before it ran", job_id)
    finally:
        _context.current.owner = None


class _Execution:
    """One start of one job on this worker."""

    def __init__(self, context: WorkerContext, record: JobRecord) -> None:
        assert record.execution is not None
        self._context = context
        self._record = record
        self._owner: str = record.execution
        self._lost = False

    def run(self) -> None:
        """Generate, then write the end: to the video store first, to the record last."""
        record, store = self._record, self._context.store
        logger.info("job %s started (attempt %d)", record.id, record.attempts)
        self._finish(self._generate())
        logger.info("job %s: %s", record.id, store.get(record.id).status)

    def _generate(self) -> EndAnswer:
        record, videos = self._record, self._context.videos
        try:
            with videos.staging(record.id) as staged:
                image = videos.find_image(record.id) if record.request.image_sha256 else None
                job = Generate(record.request, staged.folder, image)
                answer = self._context.engine.run(job, self._progress, self._stop_wanted)
                if isinstance(answer, Finished):
                    staged.publish()
                return answer
        except StorageUnavailable as error:
            return Failed(JobError(code=error.code, message=str(error)))

    def _finish(self, answer: EndAnswer) -> None:
        store, job_id = self._context.store, self._record.id
        if isinstance(answer, Finished):
            metrics = self._with_queue_time(answer.metrics)
            if store.succeed(job_id, self._owner, metrics, self._record.request.num_inference_steps):
                store.add_totals(_totals(metrics))
                self._context.estimator.remember(self._context.model, self._record.request, metrics)
        elif isinstance(answer, Failed):
            if store.fail(job_id, self._owner, answer.error):
                store.add_totals({"jobs_failed": 1})
        elif store.get(job_id).cancel_requested:
            if store.finish_cancel(job_id, self._owner):
                store.add_totals({"jobs_cancelled": 1})
        elif store.return_to_queue(job_id, self._owner):
            # Stopped because this worker shuts down: another one, or this one's next start, takes the job.
            self._context.queue.send(job_id, self._record.request.model, self._record.priority)

    def _progress(self, progress: Progress) -> None:
        if not self._context.store.set_progress(self._record.id, self._owner, progress):
            self._lost = True

    def _stop_wanted(self) -> bool:
        if self._lost or self._context.shutting_down.is_set():
            return True
        try:
            return self._context.store.should_stop(self._record.id, self._owner)
        except (RedisError, JobNotFound):
            return False

    def _with_queue_time(self, metrics: JobMetrics) -> JobMetrics:
        started = self._record.started_at
        assert started is not None
        waited = (started - self._record.created_at).total_seconds()
        total = (utc_now() - self._record.created_at).total_seconds()
        latency = metrics.latency_s.model_copy(update={"queue": waited, "total": total})
        return metrics.model_copy(update={"latency_s": latency})


def _totals(metrics: JobMetrics) -> dict[str, float]:
    return {
        "jobs_succeeded": 1,
        "attention_dense_flops": metrics.attention.dense_flops,
        "attention_executed_flops": metrics.attention.executed_flops,
        "denoise_seconds": metrics.latency_s.denoise,
        "video_seconds": metrics.output.duration_s,
    }
