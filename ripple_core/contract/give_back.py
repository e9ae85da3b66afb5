"""What becomes of a running job that its execution cannot bring to an end."""

from ripple_core.contract.job import JobError, JobRecord, JobStatus
from ripple_core.contract.queue import JobQueue
from ripple_core.contract.store import JobStore


def give_back(
    store: JobStore, queue: JobQueue, record: JobRecord, failure: JobError | None, max_attempts: int
) -> JobStatus | None:
    """Cancel the job if that was asked for, else queue it again, or let it fail when no attempt is left.

    Args:
        store: of the records.
        queue: of the messages.
        record: as it was when the execution had it.
        failure: how the attempt ended; None when the worker hands the job back in good order, and it does not count.
        max_attempts: starts of a job after which it fails.

    Returns:
        What the job has become; None when it was no longer the execution's.

    Raises:
        JobNotFound: when it has been deleted.
        redis.RedisError: when Redis cannot be reached; it may be called again.
    """
    assert record.execution is not None
    if store.get(record.id).cancel_requested:
        return JobStatus.CANCELLED if store.finish_cancel(record.id, record.execution) else None
    if failure is not None and record.attempts >= max_attempts:
        message = f"{failure.message} That was attempt {record.attempts} of {max_attempts}."
        final = failure.model_copy(update={"message": message})
        return JobStatus.FAILED if store.fail(record.id, record.execution, final) else None
    if not store.return_to_queue(record.id, record.execution, failure):
        return None
    # Should this get lost, upkeep sends the message.
    queue.send(record.id, record.request.model, record.priority, at_front=True)
    return JobStatus.QUEUED
