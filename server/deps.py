"""What routes get handed."""

import re
from typing import Annotated, Any

from fastapi import Depends, Path, Request

from ripple_core.contract.errors import JobNotFound
from ripple_core.contract.job import JOB_ID_PATTERN
from server.service import JobService


def _service(request: Request) -> JobService:
    service: JobService = request.app.state.service
    return service


def _async_redis(request: Request) -> Any:
    return request.app.state.async_redis


def _job_id(job_id: Annotated[str, Path(description="Id of a job.")]) -> str:
    """A malformed id names no job; it must not reach the store's keys."""
    if not re.fullmatch(JOB_ID_PATTERN, job_id):
        raise JobNotFound(job_id[:100])
    return job_id


Service = Annotated[JobService, Depends(_service)]
AsyncRedis = Annotated[Any, Depends(_async_redis)]
JobId = Annotated[str, Depends(_job_id)]
