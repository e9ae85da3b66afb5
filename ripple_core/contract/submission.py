"""Takes jobs in: what may not wait is refused, what is accepted is stored and queued in the same step."""

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from redis import Redis

from ripple_core.contract import scripts
from ripple_core.contract.errors import IdempotencyConflict, QueueFull, TooManyActiveJobs
from ripple_core.contract.job import JobRecord
from ripple_core.contract.queue import KEY_PREFIX, QUEUE_KEYS, JobQueue
from ripple_core.contract.store import PREFIX, JobStore, milliseconds

IDEMPOTENCY_SECONDS = 24 * 3600
# What a client is told where nothing is known of how long jobs take, or no worker lives.
_RETRY_UNKNOWN_SECONDS = 60
_RETRY_MOST_SECONDS = 3600


@dataclass(frozen=True)
class IdempotencyKey:
    """A client's own name for a submission.

    Attributes:
        owner: the API key that sent it, so that two clients may choose the same word.
        key: the word.
        fingerprint: of the request; the same key with another one is an error.
    """

    owner: str | None
    key: str
    fingerprint: str

    @property
    def redis_key(self) -> str:
        """Where it is kept."""
        digest = hashlib.sha256(f"{self.owner or ''}\n{self.key}".encode()).hexdigest()
        return f"{PREFIX}idempotency:{digest}"


class Submissions:
    """The one way into the queue.

    Args:
        redis: shared with store and queue.
        store: of the records.
        queue: of the messages.
        max_queued_jobs: most jobs that may wait.
        max_queued_seconds: most estimated seconds of work that may wait.
    """

    def __init__(
        self, redis: Redis, store: JobStore, queue: JobQueue, max_queued_jobs: int, max_queued_seconds: float
    ) -> None:
        self._redis: Any = redis
        self._store = store
        self._queue = queue
        self._max_queued_jobs = max_queued_jobs
        self._max_queued_seconds = max_queued_seconds
        self._script = redis.register_script(scripts.SUBMIT)

    def submit(self, records: list[JobRecord], max_active: int | None, key: IdempotencyKey | None) -> str:
        """Store and queue jobs of one owner together, or none of them.

        Args:
            records: one, or all of a batch.
            max_active: most queued and running jobs the owner may have; None for any number.
            key: of an earlier submission that this one may be a repetition of.

        Returns:
            Id of the first job, or of the job that the idempotency key already stands for.

        Raises:
            IdempotencyConflict: when the key stands for another request.
            QueueFull: when the bound of the queue is reached.
            TooManyActiveJobs: when the owner's is.
        """
        first = records[0]
        work = sum(milliseconds(record.estimated_s) for record in records)
        arguments = [
            *(PREFIX, first.owner or "", len(records), work),
            *(self._max_queued_jobs, milliseconds(self._max_queued_seconds), max_active or 0),
            *(key.fingerprint if key else "", first.id, IDEMPOTENCY_SECONDS, KEY_PREFIX),
            *self._commands(records),
        ]
        # Without a key the script reads nothing there.
        keys = [key.redis_key if key else f"{PREFIX}idempotency:", QUEUE_KEYS]
        answer = self._script(keys=keys, args=arguments)
        outcome = answer[0].decode()
        if outcome == "conflict":
            raise IdempotencyConflict(
                f"Idempotency-Key: it was used for job {answer[1].decode()} with another body; "
                "send that body again, or take a new key."
            )
        if outcome == "full":
            raise self._queue_full(queued=answer[1], queued_ms=answer[2], more=len(records), more_ms=work)
        if outcome == "quota":
            raise TooManyActiveJobs(
                f"This API key has {answer[1]} queued and running jobs of at most {max_active}; wait for one to end.",
                self._retry_after(answer[1] + len(records) - (max_active or 0), 0),
            )
        return str(answer[1].decode())

    def _commands(self, records: list[JobRecord]) -> Iterator[Any]:
        """What stores and queues the jobs, as words for the script."""
        pipeline = self._redis.pipeline()
        for record in records:
            self._store.add(record, pipeline)
            self._queue.send(record.id, record.request.model, record.priority, pipeline)
        for words, _ in pipeline.command_stack:
            yield len(words)
            yield from words

    def _queue_full(self, queued: int, queued_ms: int, more: int, more_ms: int) -> QueueFull:
        seconds = (queued_ms + more_ms) / 1000 - self._max_queued_seconds
        retry_after = self._retry_after(queued + more - self._max_queued_jobs, seconds)
        return QueueFull(
            f"{queued} jobs ({queued_ms / 1000:.0f} s of work) are waiting; at most {self._max_queued_jobs} jobs and "
            f"{self._max_queued_seconds:.0f} s may. Try again in {retry_after} s.",
            retry_after,
        )

    def _retry_after(self, jobs_over: int, seconds_over: float) -> int:
        """Seconds until so many jobs and so much work have left the queue, from what the waiting jobs should take."""
        queued, queued_ms = self._store.queued_work()
        num_workers = len(self._store.live_workers())
        if not num_workers or not queued or not queued_ms:
            return _RETRY_UNKNOWN_SECONDS
        jobs_seconds = max(jobs_over, 0) * queued_ms / 1000 / queued
        wait = max(jobs_seconds, seconds_over) / num_workers
        return min(max(math.ceil(wait), 1), _RETRY_MOST_SECONDS)
