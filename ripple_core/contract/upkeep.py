"""Puts right what a crash left behind, and removes what has had its time. Any worker may run it at any time."""

import logging
import time
from collections.abc import Callable
from datetime import timedelta

from ripple_core.contract.errors import JobNotFound, StorageUnavailable, WorkerLost
from ripple_core.contract.job import JobError, JobStatus, utc_now
from ripple_core.contract.queue import JobQueue
from ripple_core.contract.retention import Retention
from ripple_core.contract.store import JobStore

logger = logging.getLogger(__name__)

# A job this young may still be on its way into the queue, or just out of it.
_SETTLE = timedelta(seconds=10)


class Upkeep:
    """Returns lost jobs to the queue, re-sends queued jobs whose message got lost, and sees to retention.

    Args:
        store: of the records.
        queue: of the messages.
        retention: run once a minute.
        max_attempts: starts of a job after which it fails instead.
        is_given_up: whether an execution is one that this very worker, though it lives, is no longer at: an outage of
            Redis may have cut it off.
    """

    def __init__(
        self,
        store: JobStore,
        queue: JobQueue,
        retention: Retention,
        max_attempts: int,
        is_given_up: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self._store = store
        self._queue = queue
        self._retention = retention
        self._max_attempts = max_attempts
        self._is_given_up = is_given_up

    def run(self) -> None:
        """One round; every change is a compare-and-set, so that rounds of several workers do not collide."""
        self._recover_running()
        self._resend_queued()
        try:
            report = self._retention.run_if_due(time.time())
        except StorageUnavailable as error:
            logger.warning("retention has to wait: %s", error)
        else:
            if report is not None and report.freed_bytes + report.removed_records:
                logger.info("retention: %s", report)

    def _recover_running(self) -> None:
        live = self._store.live_workers()
        for job_id in self._store.ids(JobStatus.RUNNING):
            try:
                record = self._store.get(job_id)
                if record.execution is None or not self._is_lost(record.execution, live):
                    continue
                if record.attempts >= self._max_attempts:
                    message = f"The worker died {record.attempts} times while it ran this job."
                    self._store.fail(job_id, record.execution, JobError(code=WorkerLost.code, message=message))
                elif self._store.return_to_queue(job_id, record.execution):
                    logger.warning("job %s goes back to the queue: its worker is gone", job_id)
                    self._queue.send(job_id, record.request.model, record.priority)
            except JobNotFound:
                continue

    def _is_lost(self, execution: str, live: set[str]) -> bool:
        return execution.rpartition("/")[0] not in live or self._is_given_up(execution)

    def _resend_queued(self) -> None:
        queued = self._store.ids(JobStatus.QUEUED)
        if not queued:
            return
        for job_id in sorted(set(queued) - self._queue.waiting()):
            try:
                record = self._store.get(job_id)
                if utc_now() - record.created_at > _SETTLE:
                    logger.warning("job %s was not in the queue and is sent again", job_id)
                    self._queue.send(job_id, record.request.model, record.priority)
            except JobNotFound:
                continue
