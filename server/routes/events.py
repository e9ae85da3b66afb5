"""A job's state changes, progress and word of its previews as server-sent events."""

import logging
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Header, Response
from fastapi.responses import StreamingResponse
from redis import RedisError

from server.deps import AsyncRedis, OwnRecord, Service
from server.errors import responses
from server.event_stream import FROM_THE_START, follow
from server.service import JobService

logger = logging.getLogger(__name__)

router = APIRouter(prefix="/jobs", tags=["jobs"])

_EVENT_ID_PATTERN = r"^\d{1,19}-\d{1,19}$"
_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
_EXAMPLE = 'id: 1764085103212-0\nevent: state\ndata: {"status": "running", "at": "...", "error": null}\n\n'


@router.get(
    "/{job_id}/events",
    response_class=StreamingResponse,
    responses=responses(
        404,
        410,
        422,
        also={
            200: {
                "description": "Events `state` and `progress`; of jobs with `preview: true` also `preview`, whose "
                '`{"step": n}` tells after which denoising step the frames now at /jobs/{id}/preview were made.',
                "content": {"text/event-stream": {"schema": {"type": "string"}, "example": _EXAMPLE}},
            },
            204: {"description": "The job has ended and there is nothing after Last-Event-ID."},
        },
    ),
)
def follow_job(
    record: OwnRecord,
    service: Service,
    redis: AsyncRedis,
    last_event_id: Annotated[
        str, Header(pattern=_EVENT_ID_PATTERN, description="Id of the last event seen; only later ones come.")
    ] = FROM_THE_START,
) -> Response:
    """Follow a job from its start, or from after Last-Event-ID, to its terminal state."""
    if service.has_told_all(record.id, last_event_id):
        # What makes a browser's EventSource stop reconnecting.
        return Response(status_code=204)
    events = _text(redis, service, record.id, last_event_id)
    return StreamingResponse(events, media_type="text/event-stream", headers=_HEADERS)


async def _text(redis: Any, service: JobService, job_id: str, last_id: str) -> AsyncIterator[str]:
    try:
        async for event in follow(redis, service, job_id, last_id):
            if event is None:
                yield ": still here\n\n"
            else:
                yield f"id: {event.id}\nevent: {event.name}\ndata: {event.data}\n\n"
    except RedisError as error:
        # The status line is long sent. A clean end makes clients reconnect with their Last-Event-ID.
        logger.warning("event stream of %s ends early: %s", job_id, error)
