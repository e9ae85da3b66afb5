"""Puts right what a crash left behind, and removes what has had its time. Any worker may run it at any time."""

import logging
import time
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
    """Returns jobs of dead workers to the queue, re-sends queued jobs whose message got lost, and sees to retention."""

    def __init__(self, store: JobStore, queue: JobQueue, retention: Retention, max_attempts: int) -> None:
        self._store = store
        self._queue = queue
        self._retention = retention
        self._max_attempts = max_attempts

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
                if record.execution is None or record.execution.rpartition("/")[0] in live:
                    continue
                if record.attempts >= self._max_attempts:
                    message = f"The worker died {record.attempts} times while it ran this job."
                    self._store.fail(job_id, record.execution, JobError(code=WorkerLost.code, message=message))
                elif self._store.return_to_queue(job_id, record.execution):
                    logger.warning("job %s goes back to the queue: its worker is gone", job_id)
                    self._queue.send(job_id, record.priority)
            except JobNotFound:
                continue

    def _resend_queued(self) -> None:
        queued = self._store.ids(JobStatus.QUEUED)
        if not queued:
            return
        for job_id in sorted(set(queued) - self._queue.waiting()):
            try:
                record = self._store.get(job_id)
                if utc_now() - record.created_at > _SETTLE:
                    logger.warning("job %s was not in the queue and is sent again", job_id)
                    self._queue.send(job_id, record.priority)
            except JobNotFound:
                continue
