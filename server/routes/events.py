"""A job's state changes and progress as server-sent events."""

import json
import logging
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Header, Response
from fastapi.responses import StreamingResponse
from redis import RedisError
from starlette.concurrency import run_in_threadpool

from ripple_core.contract.errors import JobNotFound
from ripple_core.contract.job import JobStatus
from ripple_core.contract.store import events_key
from server.deps import AsyncRedis, JobId, Service
from server.errors import responses
from server.service import JobService

logger = logging.getLogger(__name__)

router = APIRouter(prefix="/jobs", tags=["jobs"])

HEARTBEAT_SECONDS = 10
_EVENT_ID_PATTERN = r"^\d{1,19}-\d{1,19}$"
_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


@router.get(
    "/{job_id}/events",
    response_class=StreamingResponse,
    responses=responses(
        404,
        422,
        also={
            200: {"description": "Events `state` and `progress`.", "content": {"text/event-stream": {}}},
            204: {"description": "The job has ended and there is nothing after Last-Event-ID."},
        },
    ),
)
def follow_job(
    job_id: JobId,
    service: Service,
    redis: AsyncRedis,
    last_event_id: Annotated[str, Header(pattern=_EVENT_ID_PATTERN)] = "0-0",
) -> Response:
    """Follow a job from its start, or from after Last-Event-ID, to its terminal state."""
    if service.has_told_all(job_id, last_event_id):
        # What makes a browser's EventSource stop reconnecting.
        return Response(status_code=204)
    events = _events(redis, service, job_id, last_event_id)
    return StreamingResponse(events, media_type="text/event-stream", headers=_HEADERS)


async def _events(redis: Any, service: JobService, job_id: str, last_id: str) -> AsyncIterator[str]:
    try:
        async for event in _read(redis, service, job_id, last_id):
            yield event
    except RedisError as error:
        # The status line is long sent. A clean end makes clients reconnect with their Last-Event-ID.
        logger.warning("event stream of %s ends early: %s", job_id, error)


async def _read(redis: Any, service: JobService, job_id: str, last_id: str) -> AsyncIterator[str]:
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
            yield ": still here\n\n"
            continue
        for event_id, fields in _entries(answer):
            last_id = event_id.decode()
            name, data = fields[b"event"].decode(), fields[b"data"].decode()
            yield f"id: {last_id}\nevent: {name}\ndata: {data}\n\n"
            if name == "state" and JobStatus(json.loads(data)["status"]).is_terminal:
                return


def _entries(answer: Any) -> list[tuple[bytes, dict[bytes, bytes]]]:
    """XREAD's answer for one stream; a list in RESP2, a mapping in RESP3."""
    (batches,) = answer.values() if isinstance(answer, dict) else (answer[0][1],)
    return batches[0] if isinstance(answer, dict) else batches
