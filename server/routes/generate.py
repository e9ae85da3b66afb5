"""Submit a job, wait for it, or ask what it would cost."""

import re
from contextlib import suppress
from typing import Annotated

from fastapi import APIRouter, Header, Request
from fastapi.responses import JSONResponse
from redis import RedisError
from starlette.concurrency import run_in_threadpool

from ripple_core.contract.errors import JobNotFound
from ripple_core.contract.job import JobRecord
from ripple_core.contract.request import GenerateRequest
from server.body import read_body
from server.deps import AsyncRedis, CallerDep, IdempotencyKeyHeader, JobView, JobViewDep, Service
from server.errors import Responses, responses
from server.event_stream import wait_for_end
from server.openapi_bodies import body_of
from server.rate_limit import SubmissionLimit
from server.schemas import EstimateAnswer, Job
from server.service import JobService, Order

router = APIRouter(tags=["generate"])

MAX_WAIT_SECONDS = 300
_WAIT = re.compile(r"(?:^|[,;\s])wait=(\d{1,9})(?=$|[,;\s])")
_LOCATION = {"description": "Path of the job.", "schema": {"type": "string"}}
_ACCEPTED: Responses = {
    200: {"description": "`Prefer: wait` was given and the job has ended.", "headers": {"Location": _LOCATION}},
    202: {"description": "Stored and queued.", "headers": {"Location": _LOCATION}},
}
_BODY = body_of(GenerateRequest, "image")


@router.post(
    "/generate",
    status_code=202,
    response_model=Job,
    responses=responses(400, 403, 409, 410, 413, 415, 422, 429, also=_ACCEPTED),
    openapi_extra=_BODY,
)
async def generate(
    request: Request,
    service: Service,
    caller: CallerDep,
    view: JobViewDep,
    redis: AsyncRedis,
    limit: SubmissionLimit,
    idempotency_key: IdempotencyKeyHeader = None,
    prefer: Annotated[
        str | None,
        Header(description=f"wait=N: answer when the job has ended, after N seconds at most ({MAX_WAIT_SECONDS})."),
    ] = None,
) -> JSONResponse:
    """Queue a job for a video; `Location` and `links` say where to follow it."""
    body, image = await read_body(request, GenerateRequest, "image")
    order = Order(body, caller, image, idempotency_key)
    record, job = await run_in_threadpool(_submit, service, view, order)
    headers = {"Location": job.links.self, **limit.headers}
    if (seconds := _wanted_wait(prefer)) is not None:
        # The job is accepted: an outage of Redis, or its deletion, must not look as if it were not.
        with suppress(RedisError, JobNotFound):
            await wait_for_end(redis, service, record.batch or [record.id], seconds)
            record = await run_in_threadpool(service.get, record.id, caller)
            job = await run_in_threadpool(view, record)
        headers["Preference-Applied"] = f"wait={seconds}"
    status = 200 if seconds is not None and record.status.is_terminal else 202
    return JSONResponse(job.model_dump(mode="json"), status, headers)


@router.post("/generate/estimate", responses=responses(400, 403, 413, 415, 422), openapi_extra=_BODY)
async def estimate(request: Request, service: Service) -> EstimateAnswer:
    """Say what a request would cost, without queueing anything; the image may be left out."""
    body, image = await read_body(request, GenerateRequest, "image")
    resolved, cost = await run_in_threadpool(service.estimate, body, image)
    wait_s = await run_in_threadpool(service.queue_wait_s)
    return EstimateAnswer(request=resolved, estimate=cost, num_videos=body.n, queue_wait_s=wait_s)


def _submit(service: JobService, view: JobView, order: Order) -> tuple[JobRecord, Job]:
    record = service.submit(order)
    return record, view(record)


def _wanted_wait(prefer: str | None) -> int | None:
    """Seconds of RFC 7240's `wait`; a preference that cannot be read is none."""
    match = _WAIT.search(prefer or "")
    return min(int(match[1]), MAX_WAIT_SECONDS) if match else None
