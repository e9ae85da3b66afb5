"""Puts right what a crash left behind, and removes what has had its time. Any worker may run it at any time."""

import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta

from ripple_core.contract.errors import JobNotFound, StorageUnavailable, WorkerLost
from ripple_core.contract.give_back import give_back
from ripple_core.contract.job import JobError, JobRecord, JobStatus
from ripple_core.contract.queue import JobQueue
from ripple_core.contract.retention import Retention
from ripple_core.contract.store import ALL, JobStore
from ripple_core.contract.workers import WorkerInfo

logger = logging.getLogger(__name__)

# Reading all messages of a long queue takes long; of the time it may take so much.
_SHARE_OF_TIME = 0.02


class Upkeep:
    """Returns lost jobs to the queue, re-sends queued jobs whose message got lost, and sees to retention.

    One worker at a time does it, the first one again and again while it lives: what it reads grows with their number.

    Args:
        store: of the records.
        queue: of the messages.
        retention: run once a minute.
        max_attempts: starts of a job after which it fails instead.
        name: of the worker.
        turn: how long others leave it to this worker after each round.
    """

    def __init__(
        self, store: JobStore, queue: JobQueue, retention: Retention, max_attempts: int, name: str, turn: timedelta
    ) -> None:
        self._store = store
        self._queue = queue
        self._retention = retention
        self._max_attempts = max_attempts
        self._name = name
        self._turn = turn
        self._resend_at = 0.0
        self._missing: set[str] = set()

    def run(self) -> None:
        """One round if it is this worker's turn; every change is a compare-and-set, should two rounds overlap."""
        if not self._store.take_upkeep(self._name, self._turn):
            return
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
        # Before the records: an execution that has ended since has changed its record by then.
        workers = {worker.name: worker for worker in self._store.workers()}
        for record in self._store.page(JobStatus.RUNNING, after=None, limit=ALL):
            if _is_lost(record, workers):
                doing = f"in attempt {record.attempts}, stage {record.progress.stage}"
                failure = JobError(code=WorkerLost.code, message=f"The worker was lost {doing}.")
                with suppress(JobNotFound):
                    outcome = give_back(self._store, self._queue, record, failure, self._max_attempts)
                    about = {"job_id": record.id, "request_id": record.request_id}
                    logger.warning("the job's worker is gone; it is now %s", outcome or "another's", extra=about)

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
                about = {"job_id": job_id, "request_id": record.request_id}
                logger.warning("the job was not in the queue and is sent again", extra=about)
                self._queue.send(job_id, record.request.model, record.priority, at_front=True)


def _is_lost(record: JobRecord, workers: Mapping[str, WorkerInfo]) -> bool:
    """Whether the worker is gone, or said after it had claimed the job that it is not at it: an outage cut it off."""
    if record.execution is None or record.started_at is None:
        return False
    worker = workers.get(record.execution.rpartition("/")[0])
    return worker is None or (worker.told_at > record.started_at and record.id not in worker.jobs)
