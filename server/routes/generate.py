"""Submit a job."""

from fastapi import APIRouter, Response

from ripple_core.contract.request import GenerateRequest
from server.deps import Service
from server.errors import responses
from server.schemas import Job

router = APIRouter(tags=["generate"])


@router.post("/generate", status_code=202, responses=responses(400, 422))
def generate(body: GenerateRequest, service: Service, response: Response) -> Job:
    """Queue a text-to-video job; `Location` and `links` say where to follow it."""
    job = Job.of(service.submit(body))
    response.headers["Location"] = job.links.self
    return job
