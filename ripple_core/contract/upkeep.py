"""Puts right what a crash left behind, and removes what has had its time. Any worker may run it at any time."""

import logging
import time
from collections.abc import Callable

from ripple_core.contract.errors import JobNotFound, StorageUnavailable, WorkerLost
from ripple_core.contract.job import JobError, JobRecord, JobStatus
from ripple_core.contract.queue import JobQueue
from ripple_core.contract.retention import Retention
from ripple_core.contract.store import JobStore

logger = logging.getLogger(__name__)

# Reading all messages of a long queue takes long; of the time it may take so much.
_SHARE_OF_TIME = 0.02


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
        self._resend_at = 0.0
        self._missing: set[str] = set()

    def run(self) -> None:
        """One round; every change is a compare-and-set, so that rounds of several workers do not collide."""
        self._recover_running()
        began = time.monotonic()
        if began >= self._resend_at:
            self._resend_queued()
            ended = time.monotonic()
            self._resend_at = ended + (ended - began) / _SHARE_OF_TIME
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
                if record.execution is not None and self._is_lost(record.execution, live):
                    self._recover(record, record.execution)
            except JobNotFound:
                continue

    def _recover(self, record: JobRecord, execution: str) -> None:
        doing = f"in attempt {record.attempts}, stage {record.progress.stage}"
        if record.cancel_requested:
            self._store.finish_cancel(record.id, execution)
        elif record.attempts >= self._max_attempts:
            message = f"The worker was lost {doing}; no attempt is left."
            self._store.fail(record.id, execution, JobError(code=WorkerLost.code, message=message))
        else:
            failure = JobError(code=WorkerLost.code, message=f"The worker was lost {doing}.")
            if self._store.return_to_queue(record.id, execution, failure):
                logger.warning("job %s goes back to the queue: its worker is gone", record.id)
                self._queue.send(record.id, record.request.model, record.priority, at_front=True)

    def _is_lost(self, execution: str, live: set[str]) -> bool:
        return execution.rpartition("/")[0] not in live or self._is_given_up(execution)

    def _resend_queued(self) -> None:
        """Send queued jobs again that had no message in two rounds: a worker may just be taking one."""
        queued = self._store.ids(JobStatus.QUEUED)
        missing = set(queued) - self._queue.waiting() if queued else set()
        lost, self._missing = missing & self._missing, missing
        # The oldest last: each goes to the front.
        for job_id in sorted(lost, reverse=True):
            try:
                record = self._store.get(job_id)
            except JobNotFound:
                continue
            # It may have been claimed since the ids were read.
            if record.status == JobStatus.QUEUED:
                logger.warning("job %s was not in the queue and is sent again", job_id)
                self._queue.send(job_id, record.request.model, record.priority, at_front=True)
