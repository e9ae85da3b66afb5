"""Read, cancel and delete jobs; fetch their videos."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from fastapi.responses import FileResponse, JSONResponse

from ripple_core.contract.job import JOB_ID_PATTERN, JobStatus
from server.deps import JobId, Service
from server.errors import responses
from server.schemas import Job, JobPage
from server.video_response import VideoResponse

router = APIRouter(prefix="/jobs", tags=["jobs"])

_MP4: dict[str, Any] = {"content": {"video/mp4": {"schema": {"type": "string", "format": "binary"}}}}


@router.get("", responses=responses(422))
def list_jobs(
    service: Service,
    status: Annotated[JobStatus | None, Query(description="Only jobs of this status.")] = None,
    cursor: Annotated[
        str | None, Query(description="`next_cursor` of the page before.", pattern=JOB_ID_PATTERN)
    ] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> JobPage:
    """List jobs, newest first."""
    records, next_cursor = service.page(status, cursor, limit)
    return JobPage(jobs=[Job.of(record) for record in records], next_cursor=next_cursor)


@router.get("/{job_id}", responses=responses(404, 422))
def get_job(job_id: JobId, service: Service) -> Job:
    """Read one job."""
    return Job.of(service.store.get(job_id))


@router.delete(
    "/{job_id}",
    status_code=202,
    response_model=Job,
    responses=responses(
        404,
        422,
        also={
            202: {"description": "Active: the job is being cancelled."},
            204: {"description": "Finished: the job and its video are deleted."},
        },
    ),
)
def delete_job(job_id: JobId, service: Service) -> Response:
    """Cancel an active job, or delete a finished one with its video."""
    record = service.cancel_or_delete(job_id)
    if record is None:
        return Response(status_code=204)
    return JSONResponse(Job.of(record).model_dump(mode="json"), status_code=202)


@router.get(
    "/{job_id}/video",
    response_class=FileResponse,
    responses=responses(
        400, 404, 409, 410, 416, 422, also={200: _MP4, 206: {"description": "The range asked for."} | _MP4}
    ),
)
@router.head("/{job_id}/video", include_in_schema=False)
def get_video(
    job_id: JobId,
    service: Service,
    download: Annotated[bool, Query(description="Have browsers save the file instead of playing it.")] = False,
) -> FileResponse:
    """Fetch the MP4; Range requests are answered."""
    return VideoResponse(
        service.video(job_id),
        media_type="video/mp4",
        filename=f"timeripple-{job_id}.mp4",
        content_disposition_type="attachment" if download else "inline",
        headers={"X-Content-Type-Options": "nosniff"},
    )
