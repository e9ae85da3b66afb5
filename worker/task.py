"""The one function the queue names: claims a job, with others that can share its run, and has them generated."""

import logging
import secrets
from contextlib import ExitStack

from ripple_core.contract.batch import can_share
from ripple_core.contract.errors import JobNotFound
from ripple_core.contract.job import JobRecord
from worker.context import WorkerContext
from worker.execution import Execution
from worker.messages import Generate

logger = logging.getLogger(__name__)

# How far into the queue we look for jobs that can share a run.
_LOOK_AHEAD = 32

_context: WorkerContext | None = None


def set_context(context: WorkerContext) -> None:
    """Called once per worker process, before the first job: RQ hands over the job id and nothing else."""
    global _context  # noqa: PLW0603 - the queue calls run_job by name, so its context can only be found here
    _context = context


def run_job(job_id: str) -> None:
    """Claim a job and bring it to an end; called by RQ."""
    assert _context is not None, "set_context was not called"
    context = _context
    context.status.enter("busy")
    try:
        with ExitStack() as running:
            first = _claim(context, job_id, running)
            if first is not None:
                _run(context, [first, *_companions(context, first.record, running)])
    finally:
        context.status.enter("idle")


def _run(context: WorkerContext, executions: list[Execution]) -> None:
    videos = {execution.owner: execution.prepare() for execution in executions}
    followers = {execution.owner: execution for execution in executions if videos[execution.owner] is not None}
    if followers:
        task = Generate(tuple(video for video in videos.values() if video is not None))
        context.engine.run(task, followers)


def _claim(context: WorkerContext, job_id: str, running: ExitStack) -> Execution | None:
    """Make the job ours; None when somebody else was faster, or it is gone."""
    token = secrets.token_hex(8)
    owner = f"{context.status.name}/{token}"
    # Before the claim: else upkeep might take a claim whose answer is late for one we have given up.
    context.status.executions[owner] = job_id
    try:
        if context.store.claim(job_id, token, context.status.name):
            return running.enter_context(Execution(context, context.store.get(job_id)))
    except JobNotFound:
        logger.info("the job was deleted before it ran", extra={"job_id": job_id})
    except BaseException:
        context.status.executions.pop(owner, None)
        raise
    context.status.executions.pop(owner, None)
    return None


def _companions(context: WorkerContext, first: JobRecord, running: ExitStack) -> list[Execution]:
    """Waiting jobs claimed to share the first one's run, if the model is to be run in batches."""
    room = context.models[first.request.model].max_batch - 1
    # A job that has been tried before may be what killed the process: it runs alone.
    if room == 0 or first.attempts > 1:
        return []
    found: list[Execution] = []
    waiting = context.queue.next_jobs(first.request.model, first.priority, _LOOK_AHEAD)
    for job_id, message_id in waiting.items():
        if len(found) == room:
            break
        if _suits(context, first, job_id) and (execution := _claim(context, job_id, running)) is not None:
            context.queue.remove(first.request.model, first.priority, message_id)
            found.append(execution)
    return found


def _suits(context: WorkerContext, first: JobRecord, job_id: str) -> bool:
    try:
        other = context.store.get(job_id)
    except JobNotFound:
        return False
    return other.attempts == 0 and can_share(first.request, other.request)
