"""Reads a job's events as they happen, and waits for its end."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from starlette.concurrency import run_in_threadpool

from ripple_core.contract.errors import JobNotFound
from ripple_core.contract.job import JobStatus
from ripple_core.contract.store import events_key
from server.service import JobService

HEARTBEAT_SECONDS = 10
FROM_THE_START = "0-0"


@dataclass(frozen=True)
class JobEvent:
    """A change of state, some progress or word of a preview; `data` is JSON."""

    id: str
    name: str
    data: str

    @property
    def ends_the_job(self) -> bool:
        """True for the last event of a job."""
        return self.name == "state" and JobStatus(json.loads(self.data)["status"]).is_terminal


async def follow(redis: Any, service: JobService, job_id: str, last_id: str) -> AsyncIterator[JobEvent | None]:
    """Events after `last_id` up to the job's end; None whenever nothing has happened for a while.

    Raises:
        redis.RedisError: when Redis cannot be reached.
    """
    key = events_key(job_id)
    while True:
        answer = await redis.xread({key: last_id}, count=100, block=HEARTBEAT_SECONDS * 1000)
        if not answer:
            try:
                # Also for a Last-Event-ID from the future, which no event will ever follow.
                if await run_in_threadpool(service.has_told_all, job_id, last_id):
                    return
            except JobNotFound:
                return
            yield None
            continue
        for event_id, fields in _entries(answer):
            last_id = event_id.decode()
            event = JobEvent(last_id, fields[b"event"].decode(), fields[b"data"].decode())
            yield event
            if event.ends_the_job:
                return


async def wait_for_end(redis: Any, service: JobService, job_ids: list[str], seconds: float) -> None:
    """Return when all jobs have ended or are gone, or the time is over."""
    try:
        async with asyncio.timeout(seconds):
            for job_id in job_ids:
                async for _ in follow(redis, service, job_id, FROM_THE_START):
                    pass
    except TimeoutError:
        pass


def _entries(answer: Any) -> list[tuple[bytes, dict[bytes, bytes]]]:
    """XREAD's answer for one stream; a list in RESP2, a mapping in RESP3."""
    (batches,) = answer.values() if isinstance(answer, dict) else (answer[0][1],)
    return batches[0] if isinstance(answer, dict) else batches
