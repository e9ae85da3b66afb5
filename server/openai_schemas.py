"""Bodies of the OpenAI-style API: the same jobs in the words of OpenAI's Videos."""

import re
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from ripple_core.contract.errors import InvalidRequest, Violation
from ripple_core.contract.job import JobRecord, JobStatus
from ripple_core.contract.models import ModelSpec
from ripple_core.contract.request import GenerateRequest, Prompt

VideoStatus = Literal["queued", "in_progress", "completed", "failed"]

_STATUSES: dict[JobStatus, VideoStatus] = {
    JobStatus.QUEUED: "queued",
    JobStatus.RUNNING: "in_progress",
    JobStatus.SUCCEEDED: "completed",
    JobStatus.FAILED: "failed",
    # OpenAI has no such status; the error's code tells.
    JobStatus.CANCELLED: "failed",
}
_SIZE = re.compile(r"(\d{1,4})x(\d{1,4})")
_SECONDS = re.compile(r"\d{1,4}(\.\d{1,6})?")


class VideoCreateRequest(GenerateRequest):
    """OpenAI's parameters, and all of ours beside them (the openai package sends those as `extra_body`)."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"prompt": "a red circle moving left", "size": "128x128", "seconds": "2", "seed": 1}]
        }
    )

    size: str | None = Field(None, max_length=9, description='Width and height as in "1280x720"; or give those two.')
    seconds: str | float | None = Field(
        None, description="Length of the video, to the nearest number of frames the model can make; or give num_frames."
    )
    input_reference: str | None = Field(
        None, max_length=14_000_000, description="First frame, for models that take one: a file or a data URL."
    )

    def to_generate(self, spec: ModelSpec) -> GenerateRequest:
        """The same in the words of `POST /generate`.

        Raises:
            InvalidRequest: when size or seconds cannot be read, or contradict another field.
        """
        fields = self.model_dump(exclude_unset=True, exclude={"size", "seconds", "input_reference"})
        if self.size is not None:
            fields |= self._read_size()
        if self.seconds is not None:
            fields["num_frames"] = self._read_seconds(spec)
        if self.input_reference is not None:
            if self.image is not None:
                raise _contradiction("input_reference", "image")
            fields["image"] = self.input_reference
        return GenerateRequest.model_validate(fields)

    def _read_size(self) -> dict[str, int]:
        if self.width is not None or self.height is not None:
            raise _contradiction("size", "width and height")
        match = _SIZE.fullmatch(self.size or "")
        width, height = (int(match[1]), int(match[2])) if match else (0, 0)
        if not (16 <= width <= 4096 and 16 <= height <= 4096):
            allowed = "width x height in pixels, 16 to 4096 each, such as 1280x720"
            raise InvalidRequest([Violation("size", f"{self.size!r} is not {allowed}", allowed)])
        return {"width": width, "height": height}

    def _read_seconds(self, spec: ModelSpec) -> int:
        if self.num_frames is not None:
            raise _contradiction("seconds", "num_frames")
        text = str(self.seconds)
        seconds = float(text) if _SECONDS.fullmatch(text) else 0.0
        longest = spec.max_frames / (self.fps or spec.defaults.fps)
        if not 0 < seconds <= longest:
            allowed = f"more than 0 and at most {longest:g} s for {spec.id} at this frame rate"
            raise InvalidRequest([Violation("seconds", f"{text} is not {allowed}", allowed)])
        return spec.nearest_num_frames(seconds * (self.fps or spec.defaults.fps))


class RemixRequest(BaseModel):
    """A video like another one, with a new prompt: all its settings, its seed and image are taken over."""

    model_config = ConfigDict(
        extra="forbid", strict=True, json_schema_extra={"examples": [{"prompt": "a blue square"}]}
    )

    prompt: Prompt = Field(description="What the new video shows.")


class VideoError(BaseModel):
    """Why a video failed."""

    code: str = Field(description="Stable word for programs.")
    message: str = Field(description="What happened and what to do.")


class Video(BaseModel):
    """A job as OpenAI's clients see it."""

    id: str = Field(description="The job's id, the same as on /jobs.")
    object: Literal["video"] = Field("video", description="Always video.")
    model: str = Field(description="Id of the model.")
    status: VideoStatus = Field(description="A cancelled job is failed, with error code `cancelled`.")
    progress: int = Field(ge=0, le=100, description="Percent; 100 only when completed.")
    created_at: int = Field(description="Seconds since 1970.")
    completed_at: int | None = Field(description="Seconds since 1970, once completed.")
    expires_at: int | None = Field(description="Until when the files are kept, in seconds since 1970.")
    prompt: str = Field(description="What the video shows.")
    size: str = Field(description="Width x height in pixels.")
    seconds: str = Field(description="Length of the video.")
    remixed_from_video_id: str | None = Field(description="The video whose settings were taken over.")
    error: VideoError | None = Field(description="Why it failed.")

    @classmethod
    def of(cls, record: JobRecord, video_ttl_seconds: int) -> "Video":
        """A record in OpenAI's words."""
        request = record.request
        ended = int(record.finished_at.timestamp()) if record.finished_at else None
        completed = record.status == JobStatus.SUCCEEDED
        error = VideoError(code=record.error.code, message=record.error.message) if record.error else None
        if record.status == JobStatus.CANCELLED:
            error = VideoError(code="cancelled", message="The job was cancelled.")
        return cls(
            id=record.id,
            model=request.model,
            status=_STATUSES[record.status],
            progress=100 if completed else min(int(record.progress.fraction * 100), 99),
            created_at=int(record.created_at.timestamp()),
            completed_at=ended if completed else None,
            expires_at=ended + video_ttl_seconds if completed and ended else None,
            prompt=request.prompt,
            size=f"{request.width}x{request.height}",
            seconds=f"{request.num_frames / request.fps:g}",
            remixed_from_video_id=record.remixed_from,
            error=error,
        )


class VideoList(BaseModel):
    """A page of videos."""

    object: Literal["list"] = Field("list", description="Always list.")
    data: list[Video] = Field(description="At most `limit` of them.")
    first_id: str | None = Field(description="Id of the first; null on an empty page.")
    last_id: str | None = Field(description="Id of the last: give it as `after` to get the next page.")
    has_more: bool = Field(description="Whether more follow.")


class VideoDeleted(BaseModel):
    """A video that is gone, with its files."""

    id: str = Field(description="Its id.")
    object: Literal["video.deleted"] = Field("video.deleted", description="Always video.deleted.")
    deleted: Literal[True] = Field(True, description="Always true.")


class OpenAIModel(BaseModel):
    """A model."""

    id: str = Field(description="What `model` of a request may be.")
    object: Literal["model"] = Field("model", description="Always model.")
    created: int = Field(0, description="Not known here: always 0.")
    owned_by: str = Field("timeripple", description="Always timeripple.")


class OpenAIModelList(BaseModel):
    """The models this server generates with."""

    object: Literal["list"] = Field("list", description="Always list.")
    data: list[OpenAIModel] = Field(description="The default one first.")


class OpenAIErrorDetails(BaseModel):
    """What is wrong."""

    message: str = Field(description="What is wrong and what to do.")
    type: str = Field(description="Kind of error, in OpenAI's words.")
    param: str | None = Field(None, description="The first wrong field.")
    code: str = Field(description="Stable word for programs, the same as on our own API.")


class OpenAIError(BaseModel):
    """An error in OpenAI's shape."""

    error: OpenAIErrorDetails = Field(description="What is wrong.")


def _contradiction(field: str, other: str) -> InvalidRequest:
    return InvalidRequest([Violation(field, f"contradicts {other}; give one of them", f"{field} or {other}")])
