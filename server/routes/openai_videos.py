"""OpenAI's Videos API over the same jobs, for clients that speak it."""

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import FileResponse
from starlette.concurrency import run_in_threadpool

from ripple_core.contract.job import JOB_ID_PATTERN, JobRecord
from ripple_core.contract.request import GenerateRequest
from ripple_core.contract.videos import SPRITESHEET, THUMBNAIL, video_file
from server.body import read_body
from server.deps import AsyncRedis, CallerDep, IdempotencyKeyHeader, OwnRecord, Service, Settings
from server.errors import StillStopping, responses
from server.event_stream import wait_for_end
from server.openai_schemas import (
    OpenAIModel,
    OpenAIModelList,
    RemixRequest,
    Video,
    VideoCreateRequest,
    VideoDeleted,
    VideoList,
)
from server.openapi_bodies import body_of
from server.rate_limit import SubmissionLimit
from server.routes.jobs import file_responses
from server.service import Order
from server.video_response import VideoResponse

router = APIRouter(prefix="/v1", tags=["OpenAI videos"])

# How long a delete waits for the denoising step under way.
_STOP_SECONDS = 10
# The openai package polls as often as this header says.
_POLL_HEADER = "openai-poll-after-ms"
_MIN_POLL_MS, _MAX_POLL_MS = 500, 10_000


class Submitter:
    """Submits for the caller of a request, and answers as both routes do that submit."""

    def __init__(
        self,
        response: Response,
        service: Service,
        settings: Settings,
        caller: CallerDep,
        limit: SubmissionLimit,
        idempotency_key: IdempotencyKeyHeader = None,
    ) -> None:
        response.headers.update(limit.headers)
        self._service = service
        self._video_ttl_seconds = settings.video_ttl_seconds
        self._caller = caller
        self._idempotency_key = idempotency_key

    async def submit(
        self, request: GenerateRequest, image: bytes | None = None, remixed_from: JobRecord | None = None
    ) -> Video:
        """Queue a job, and describe it."""
        order = Order(request, self._caller, image, self._idempotency_key, remixed_from)
        record = await run_in_threadpool(self._service.submit, order)
        return Video.of(record, self._video_ttl_seconds)


SubmitterDep = Annotated[Submitter, Depends(Submitter)]


@router.post(
    "/videos",
    responses=responses(400, 403, 409, 410, 413, 415, 422, 429, openai=True),
    openapi_extra=body_of(VideoCreateRequest, "input_reference"),
)
async def create_video(request: Request, service: Service, submitter: SubmitterDep) -> Video:
    """Queue a job for a video."""
    body, image = await read_body(request, VideoCreateRequest, "input_reference")
    return await submitter.submit(body.to_generate(service.find_model(body.model)), image=image)


@router.get("/videos", responses=responses(422, openai=True))
def list_videos(
    service: Service,
    settings: Settings,
    caller: CallerDep,
    after: Annotated[str | None, Query(description="`last_id` of the page before.", pattern=JOB_ID_PATTERN)] = None,
    limit: Annotated[int, Query(ge=1, le=100, description="Videos on a page.")] = 20,
    order: Annotated[Literal["asc", "desc"], Query(description="Oldest first, or newest first.")] = "desc",
) -> VideoList:
    """List videos."""
    records, more = service.page(caller, None, after, limit, oldest_first=order == "asc")
    videos = [Video.of(record, settings.video_ttl_seconds) for record in records]
    first_id, last_id = (videos[0].id, videos[-1].id) if videos else (None, None)
    return VideoList(data=videos, first_id=first_id, last_id=last_id, has_more=more)


@router.get("/videos/{job_id}", responses=responses(404, 410, 422, openai=True))
async def get_video(record: OwnRecord, response: Response, settings: Settings) -> Video:
    """Read one video."""
    if not record.status.is_terminal:
        eta_ms = (record.progress.eta_s or 1) * 1000
        response.headers[_POLL_HEADER] = str(round(min(max(eta_ms / 10, _MIN_POLL_MS), _MAX_POLL_MS)))
    return Video.of(record, settings.video_ttl_seconds)


@router.get(
    "/videos/{job_id}/content",
    response_class=FileResponse,
    responses=file_responses("video/mp4", "video/webm", "image/gif", "application/zip", "image/webp", "image/jpeg")
    | responses(400, 403, 404, 409, 410, 416, 422, openai=True),
)
@router.head("/videos/{job_id}/content", include_in_schema=False)
def get_content(
    record: OwnRecord,
    service: Service,
    variant: Annotated[
        Literal["video", "thumbnail", "spritesheet"], Query(description="Which of the video's files.")
    ] = "video",
) -> FileResponse:
    """Fetch the video, its middle frame (WebP) or frames in a grid (JPEG); Range requests are answered."""
    names = {"thumbnail": THUMBNAIL, "spritesheet": SPRITESHEET, "video": video_file(record.request.output.format)}
    return VideoResponse(service, record, names[variant], download=False)


@router.delete("/videos/{job_id}", responses=responses(403, 404, 409, 410, 422, openai=True))
async def delete_video(record: OwnRecord, service: Service, redis: AsyncRedis) -> VideoDeleted:
    """Delete a video with its files; an active one is stopped first."""
    if not record.status.is_terminal:
        await run_in_threadpool(service.cancel, record)
        await wait_for_end(redis, service, [record.id], _STOP_SECONDS)
    if not await run_in_threadpool(service.delete, record.id):
        raise StillStopping(f"Video {record.id} is being stopped, its denoising step takes long; delete it again.", 5)
    return VideoDeleted(id=record.id)


@router.post(
    "/videos/{job_id}/remix",
    responses=responses(400, 403, 404, 409, 410, 413, 415, 422, 429, openai=True),
    openapi_extra=body_of(RemixRequest),
)
async def remix_video(request: Request, record: OwnRecord, submitter: SubmitterDep) -> Video:
    """Queue a job like another one with a new prompt: its settings, its seed and image are taken over."""
    body, _ = await read_body(request, RemixRequest)
    return await submitter.submit(_remixed(record, body.prompt), remixed_from=record)


@router.get("/models", responses=responses(openai=True), tags=["OpenAI videos"])
async def list_models(service: Service) -> OpenAIModelList:
    """List what this server generates with."""
    return OpenAIModelList(data=[OpenAIModel(id=config.spec.id) for config in service.models])


def _remixed(record: JobRecord, prompt: str) -> GenerateRequest:
    settings = record.request.model_dump(exclude={"image_sha256"})
    return GenerateRequest.model_validate(settings | {"prompt": prompt, "priority": record.priority})
