"""What routes get handed. Asynchronous where nothing blocks: a plain function would take a thread for every request."""

import re
from datetime import timedelta
from typing import Annotated, Any

from fastapi import Depends, Header, Path, Request
from starlette.concurrency import run_in_threadpool

from ripple_core.contract.errors import JobNotFound
from ripple_core.contract.job import JOB_ID_PATTERN, JobRecord
from server.access import Caller
from server.schemas import Job
from server.service import JobService
from server.settings import ServerSettings


async def _service(request: Request) -> JobService:
    service: JobService = request.app.state.service
    return service


async def _settings(request: Request) -> ServerSettings:
    settings: ServerSettings = request.app.state.settings
    return settings


async def _async_redis(request: Request) -> Any:
    return request.app.state.async_redis


async def _caller(request: Request) -> Caller:
    caller: Caller = request.state.caller
    return caller


Service = Annotated[JobService, Depends(_service)]
Settings = Annotated[ServerSettings, Depends(_settings)]
AsyncRedis = Annotated[Any, Depends(_async_redis)]
CallerDep = Annotated[Caller, Depends(_caller)]


async def _own_record(
    job_id: Annotated[str, Path(description="Id of a job.", examples=["0" * 28])], service: Service, caller: CallerDep
) -> JobRecord:
    # A malformed id names no job; it must not reach the store's keys.
    if not re.fullmatch(JOB_ID_PATTERN, job_id):
        raise JobNotFound(job_id[:100])
    return await run_in_threadpool(service.get, job_id, caller)


OwnRecord = Annotated[JobRecord, Depends(_own_record)]
IdempotencyKeyHeader = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=255,
        description="A name of your own for this submission: sent again with the same body within a day, it gives the "
        "same job instead of a second one; with another body, 409.",
    ),
]


class JobView:
    """Turns records into what clients see; reads places in the queue, so call it in a thread."""

    def __init__(self, service: Service, settings: Settings) -> None:
        self._service = service
        self._video_ttl = timedelta(seconds=settings.video_ttl_seconds)

    def __call__(self, record: JobRecord) -> Job:
        """One job."""
        return Job.of(record, self._service.place(record), self._video_ttl)


async def _job_view(service: Service, settings: Settings) -> JobView:
    return JobView(service, settings)


JobViewDep = Annotated[JobView, Depends(_job_view)]
