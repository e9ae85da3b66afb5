"""Read, cancel and delete jobs; fetch their files, and previews while they run."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from fastapi.responses import FileResponse, JSONResponse

from ripple_core.contract.job import JOB_ID_PATTERN, JobStatus
from ripple_core.contract.videos import SPRITESHEET, THUMBNAIL, video_file
from server.deps import CallerDep, JobViewDep, OwnRecord, Service
from server.errors import Responses, responses
from server.schemas import Job, JobPage
from server.video_response import VideoResponse

router = APIRouter(prefix="/jobs", tags=["jobs"])

_PREVIEW_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
_PRIVATE = {"Cache-Control": "private", "X-Content-Type-Options": "nosniff"}

Download = Annotated[bool, Query(description="Have browsers save the file instead of showing it.")]


@router.get("", responses=responses(422))
def list_jobs(
    service: Service,
    caller: CallerDep,
    view: JobViewDep,
    status: Annotated[JobStatus | None, Query(description="Only jobs of this status.")] = None,
    cursor: Annotated[
        str | None, Query(description="`next_cursor` of the page before.", pattern=JOB_ID_PATTERN)
    ] = None,
    limit: Annotated[int, Query(ge=1, le=100, description="Jobs on a page.")] = 20,
) -> JobPage:
    """List jobs, newest first."""
    records, more = service.page(caller, status, cursor, limit)
    return JobPage(jobs=[view(record) for record in records], next_cursor=records[-1].id if more else None)


@router.get("/{job_id}", responses=responses(404, 410, 422))
def get_job(record: OwnRecord, view: JobViewDep) -> Job:
    """Read one job."""
    return view(record)


@router.delete(
    "/{job_id}",
    status_code=202,
    response_model=Job,
    responses=responses(
        403,
        404,
        410,
        422,
        also={
            202: {"description": "Active: the job is being cancelled."},
            204: {"description": "Ended: the job and its files are deleted."},
        },
    ),
)
def delete_job(record: OwnRecord, service: Service, view: JobViewDep) -> Response:
    """Cancel an active job, or delete an ended one with its files."""
    if not record.status.is_terminal:
        return JSONResponse(view(service.cancel(record)).model_dump(mode="json"), status_code=202)
    service.delete(record.id)
    return Response(status_code=204)


@router.post(
    "/{job_id}/cancel",
    status_code=202,
    response_model=Job,
    responses=responses(
        403,
        404,
        410,
        422,
        also={
            200: {"description": "Ended already: the job stays as it is.", "model": Job},
            202: {"description": "Active: the job is being cancelled."},
        },
    ),
)
def cancel_job(record: OwnRecord, service: Service, view: JobViewDep) -> JSONResponse:
    """Cancel an active job; one that has ended meanwhile stays, with its files."""
    was_active = not record.status.is_terminal
    job = view(service.cancel(record) if was_active else record)
    return JSONResponse(job.model_dump(mode="json"), status_code=202 if was_active else 200)


def file_responses(*media_types: str) -> Responses:
    """What routes answer that serve a file."""
    content: dict[str, Any] = {kind: {"schema": {"type": "string", "format": "binary"}} for kind in media_types}
    whole = {"description": "The file.", "content": content}
    part = {"description": "The range asked for.", "content": content}
    return responses(400, 403, 404, 409, 410, 416, 422, also={200: whole, 206: part})


@router.get(
    "/{job_id}/video",
    response_class=FileResponse,
    responses=file_responses("video/mp4", "video/webm", "image/gif", "application/zip"),
)
@router.head("/{job_id}/video", include_in_schema=False)
def get_video(record: OwnRecord, service: Service, download: Download = False) -> FileResponse:
    """Fetch the video; Range requests are answered."""
    return VideoResponse(service, record, video_file(record.request.output.format), download)


@router.get("/{job_id}/thumbnail", response_class=FileResponse, responses=file_responses("image/webp"))
@router.head("/{job_id}/thumbnail", include_in_schema=False)
def get_thumbnail(record: OwnRecord, service: Service, download: Download = False) -> FileResponse:
    """Fetch the video's middle frame."""
    return VideoResponse(service, record, THUMBNAIL, download)


@router.get("/{job_id}/spritesheet", response_class=FileResponse, responses=file_responses("image/jpeg"))
@router.head("/{job_id}/spritesheet", include_in_schema=False)
def get_spritesheet(record: OwnRecord, service: Service, download: Download = False) -> FileResponse:
    """Fetch frames of the video in a grid, the first one at the top left."""
    return VideoResponse(service, record, SPRITESHEET, download)


def _picture(media_type: str, description: str) -> Responses:
    """What routes answer that serve a picture whole."""
    content = {media_type: {"schema": {"type": "string", "format": "binary"}}}
    return responses(404, 410, 422, also={200: {"description": description, "content": content}})


@router.get("/{job_id}/image", response_class=Response, responses=_picture("image/png", "The image."))
@router.head("/{job_id}/image", include_in_schema=False)
def get_image(record: OwnRecord, service: Service) -> Response:
    """Fetch the image the video begins from, as the server stored it."""
    return Response(service.image(record), media_type="image/png", headers=_PRIVATE)


@router.get(
    "/{job_id}/preview", response_class=Response, responses=_picture("image/webp", "Small frames as animated WebP.")
)
@router.head("/{job_id}/preview", include_in_schema=False)
def get_preview(record: OwnRecord, service: Service) -> Response:
    """Fetch what the video of a running job looks like so far, if its request has `preview: true`.

    An event `preview` tells of each new one; the last one goes when the job ends.
    """
    return Response(service.preview(record), media_type="image/webp", headers=_PREVIEW_HEADERS)
