"""One start of one job: what comes of its video, and how that is recorded."""

import logging
import time
from contextlib import AbstractContextManager, ExitStack

import tenacity
from structlog.contextvars import bound_contextvars

from ripple_core.contract.errors import JobNotFound, StorageFull, StorageUnavailable, WorkerLost
from ripple_core.contract.give_back import give_back
from ripple_core.contract.job import JobError, JobRecord, Progress, utc_now
from ripple_core.contract.metrics import JobMetrics
from ripple_core.contract.videos import StagedVideo
from worker.context import WorkerContext
from worker.messages import Answer, Failed, Finished, Stopped, Video
from worker.spans import ExecutionSpans

logger = logging.getLogger(__name__)

_ASK_SECONDS = 0.25
# A video that took minutes is worth some patience with its store.
_STORE_ATTEMPTS = 5
_FRACTION_GENERATED = 0.99


class Execution:
    """Follows the engine, then writes the end: to the video store first, to the record last.

    A context: the folder for the files is there while it lasts.

    Args:
        context: of the worker.
        record: as claimed.
    """

    def __init__(self, context: WorkerContext, record: JobRecord) -> None:
        assert record.execution is not None
        assert record.started_at is not None
        self.record = record
        self._waited_s = (record.started_at - record.waiting_since).total_seconds()
        self.owner: str = record.execution
        self._context = context
        self._folder = ExitStack()
        self._staged: StagedVideo | None = None
        self._eta_s: float | None = record.estimated_s
        self._lost = False
        self._spans = ExecutionSpans(record)
        # The claim has just told.
        self._asked_at = time.monotonic()

    def __enter__(self) -> "Execution":
        with self._named():
            logger.info("job started", extra={"attempt": self.record.attempts, "model": self.record.request.model})
        self._context.metrics.started(self.record.request.model, self._waited_s)
        self._context.status.executions[self.owner] = self.record.id
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.close()
        self._context.status.executions.pop(self.owner, None)
        self._spans.end()

    def prepare(self) -> Video | None:
        """What the engine is to generate; None when the job has ended already, since the video store is away."""
        record, videos = self.record, self._context.videos
        assert record.attempt_id is not None
        try:
            self._staged = self._folder.enter_context(videos.staging(record.id, record.attempt_id))
            image = videos.find_image(record.id) if record.request.image_sha256 else None
        except StorageUnavailable as error:
            self.on_end(Failed(JobError(code=error.code, message=str(error))))
            return None
        return Video(self.owner, record.request, self._staged.folder, image, record.id, record.request_id)

    def on_progress(self, progress: Progress) -> None:
        """Tell the job's followers."""
        self._spans.enter(progress.stage)
        self._eta_s = progress.eta_s if progress.eta_s is not None else self._eta_s
        self._lost |= not self._context.reports.set_progress(self.record.id, self.owner, progress)

    def on_preview(self, step: int, preview: bytes) -> None:
        """Let the job's followers see it."""
        self._context.reports.set_preview(self.record.id, self.owner, step, preview)

    def stop_wanted(self) -> bool:
        """Whether the job was cancelled or lost, or has to make way for the end of the worker."""
        if self._lost or self._context.shutdown.stops_job(self._eta_s):
            return True
        if time.monotonic() - self._asked_at < _ASK_SECONDS:
            return False
        self._asked_at = time.monotonic()
        return self._context.reports.should_stop(self.record.id, self.owner)

    def on_end(self, answer: Answer) -> None:
        """Bring the job to its end, or back to the queue; waits for Redis if that is away."""
        with self._named():
            try:
                self._end(answer)
            except JobNotFound:
                logger.info("the job was deleted while it ran")
            finally:
                # Others of a batch may go on.
                self._spans.end()

    def _end(self, answer: Answer) -> None:
        if isinstance(answer, Finished):
            answer = self._store(answer)
        if isinstance(answer, Finished):
            self._succeed(answer.metrics)
        elif isinstance(answer, Failed):
            self._fail(answer.error)
        else:
            # Cancelled, or taken off this worker because it ends; a job that was lost belongs to others.
            self._give_back(None)

    def _named(self) -> AbstractContextManager[object]:
        """What is logged meanwhile has the job's id, and that of the request that it came with."""
        return bound_contextvars(job_id=self.record.id, request_id=self.record.request_id)

    def _store(self, answer: Finished) -> Answer:
        """Publish the files unless the job is no longer ours."""
        began, steps = time.monotonic(), self.record.request.num_inference_steps
        storing = Progress(stage="store", step=steps, total_steps=steps, fraction=_FRACTION_GENERATED)
        store, job_id = self._context.store, self.record.id
        self._spans.enter("store")
        if not self._context.until_redis_answers(lambda: store.set_progress(job_id, self.owner, storing)):
            return Stopped()
        assert self._staged is not None
        try:
            retrying = tenacity.Retrying(
                retry=tenacity.retry_if_exception(_may_pass),
                wait=tenacity.wait_exponential(max=20.0),
                stop=tenacity.stop_after_attempt(_STORE_ATTEMPTS)
                | tenacity.stop_when_event_set(self._context.shutdown.draining),
                sleep=tenacity.sleep_using_event(self._context.shutdown.draining),
                reraise=True,
            )
            retrying(self._staged.publish)
        except StorageUnavailable as error:
            return Failed(JobError(code=error.code, message=str(error)))
        self._spans.leave()
        return Finished(self._with_times(answer.metrics, store_seconds=time.monotonic() - began))

    def _succeed(self, metrics: JobMetrics) -> None:
        record, context = self.record, self._context
        steps = record.request.num_inference_steps
        done = context.until_redis_answers(lambda: context.store.succeed(record.id, self.owner, metrics, steps))
        try:
            if not done:
                logger.warning("the job was given to another execution; the files of this one go")
                assert self._staged is not None
                self._staged.withdraw()
                return
            if record.attempts > 1:
                assert record.attempt_id is not None
                context.videos.keep_only(record.id, record.attempt_id)
        except StorageUnavailable as error:
            logger.warning("files of other attempts stay until the job is deleted: %s", error)
        self._spans.succeeded(metrics)
        context.metrics.succeeded(record.request.model, metrics)
        context.until_redis_answers(
            lambda: context.estimator.remember(context.models[record.request.model].spec, record.request, metrics)
        )
        about = {"seconds": round(metrics.latency_s.total, 3), "savings": round(metrics.attention.savings, 4)}
        logger.info("job succeeded", extra=about)

    def _fail(self, error: JobError) -> None:
        if error.code == WorkerLost.code:
            self._give_back(error)
            return
        record, store = self.record, self._context.store
        if self._context.until_redis_answers(lambda: store.fail(record.id, self.owner, error)):
            self._spans.failed(error.code)
            logger.info("job failed", extra={"error_code": error.code})
        else:
            logger.warning("the job was given to another execution; the failure of this one (%s) goes", error.code)

    def _give_back(self, failure: JobError | None) -> None:
        context, most = self._context, self._context.settings.max_attempts
        if failure is not None:
            self._spans.failed(failure.code)
        outcome = context.until_redis_answers(
            lambda: give_back(context.store, context.queue, self.record, failure, most)
        )
        level, why = (logging.INFO, "in good order") if failure is None else (logging.WARNING, failure.message)
        logger.log(level, "the job is given back (%s) and now %s", why, outcome or "another's")

    def _with_times(self, metrics: JobMetrics, store_seconds: float) -> JobMetrics:
        total = (utc_now() - self.record.created_at).total_seconds()
        times = {"queue": self._waited_s, "store": store_seconds, "total": total}
        return metrics.model_copy(update={"latency_s": metrics.latency_s.model_copy(update=times)})


def _may_pass(error: BaseException) -> bool:
    """Whether waiting may help: outages end, full disks stay full."""
    return isinstance(error, StorageUnavailable) and not isinstance(error, StorageFull)
