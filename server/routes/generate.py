"""Submit a job."""

from fastapi import APIRouter, Response

from ripple_core.contract.request import GenerateRequest
from server.deps import Service
from server.errors import Responses, responses
from server.schemas import Job

router = APIRouter(tags=["generate"])

_LOCATION = {"description": "Path of the job.", "schema": {"type": "string"}}
_ACCEPTED: Responses = {202: {"description": "Stored and queued.", "headers": {"Location": _LOCATION}}}


@router.post("/generate", status_code=202, responses=responses(400, 422, also=_ACCEPTED))
def generate(body: GenerateRequest, service: Service, response: Response) -> Job:
    """Queue a text-to-video job; `Location` and `links` say where to follow it."""
    job = Job.of(service.submit(body))
    response.headers["Location"] = job.links.self
    return job
