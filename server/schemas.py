"""Bodies of our own API."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, get_args

from pydantic import BaseModel, Field

from ripple_core.contract.estimate import Estimate
from ripple_core.contract.job import JobError, JobRecord, JobStatus, Progress, QueuePlace, Webhook
from ripple_core.contract.metrics import JobMetrics
from ripple_core.contract.models import ModelSpec
from ripple_core.contract.request import Priority, ResolvedRequest, ReuseMode
from ripple_core.contract.workers import WorkerInfo, WorkerState


class Links(BaseModel):
    """Where to go from a job; paths on this server."""

    self: str = Field(description="The job.")
    events: str = Field(description="Its state changes and progress as server-sent events.")
    video: str | None = Field(description="The video, once the job has succeeded.")
    thumbnail: str | None = Field(description="Its middle frame as WebP, likewise.")
    spritesheet: str | None = Field(description="Frames in a grid as JPEG, likewise.")


class Job(BaseModel):
    """A job as clients see it."""

    id: str = Field(description="28 hexadecimal digits; ids sort by creation time.")
    status: JobStatus = Field(description="succeeded, failed and cancelled never change again.")
    created_at: datetime = Field(description="When it was accepted.")
    started_at: datetime | None = Field(description="When a worker last took it; null while none has.")
    finished_at: datetime | None = Field(description="When it ended.")
    expires_at: datetime | None = Field(description="Until when the video is kept; null without a video.")
    priority: Priority = Field(description="Jobs of a higher priority start first.")
    queue: QueuePlace | None = Field(description="Where it stands while it is queued.")
    attempts: int = Field(description="How often it was started; starts that a worker handed back are not counted.")
    last_failure: JobError | None = Field(
        description="How the attempt before ended, when a crash cut it short; the job runs again, up to a limit."
    )
    estimated_s: float | None = Field(
        description="Seconds on a worker expected at submission; null where no like job had finished."
    )
    progress: Progress = Field(description="How far it is, and the time left.")
    request: ResolvedRequest = Field(description="What was asked for, every default filled in.")
    batch: list[str] = Field(description="All jobs of the request when it asked for several videos.")
    remixed_from: str | None = Field(description="The job whose settings were taken over.")
    error: JobError | None = Field(description="Why it failed.")
    metrics: JobMetrics | None = Field(description="Latency, savings and output, once it has succeeded.")
    webhook: Webhook | None = Field(description="Whom it tells of its end, and how that went.")
    links: Links = Field(description="Where to go from here.")

    @classmethod
    def of(cls, record: JobRecord, place: QueuePlace | None, video_ttl: timedelta) -> "Job":
        """The public part of a record."""
        path = f"/jobs/{record.id}"
        done = record.status == JobStatus.SUCCEEDED
        links = Links(
            self=path,
            events=f"{path}/events",
            video=f"{path}/video" if done else None,
            thumbnail=f"{path}/thumbnail" if done else None,
            spritesheet=f"{path}/spritesheet" if done else None,
        )
        progress = record.progress
        if place is not None and place.wait_s is not None and record.estimated_s is not None:
            progress = progress.model_copy(update={"eta_s": place.wait_s + record.estimated_s})
        shown = {name: getattr(record, name) for name in cls.model_fields if name in JobRecord.model_fields}
        expires_at = record.finished_at + video_ttl if done and record.finished_at else None
        return cls(**shown | {"progress": progress}, queue=place, expires_at=expires_at, links=links)


class JobPage(BaseModel):
    """Jobs, newest first."""

    jobs: list[Job] = Field(description="At most `limit` of them.")
    next_cursor: str | None = Field(description="Give it as `cursor` to get the next page; null on the last.")


class EstimateAnswer(BaseModel):
    """What a request would cost; nothing has been queued."""

    request: ResolvedRequest = Field(description="What would run, every default filled in.")
    estimate: Estimate | None = Field(description="Of each video; null for models whose shape is not known.")
    num_videos: int = Field(description="How many the request asks for.")
    queue_wait_s: float | None = Field(
        description="Estimated seconds until a job of normal priority would start; null while unknown."
    )


class LoadedOn(BaseModel):
    """A worker that has a model in its memory."""

    worker: str = Field(description="Its name.")
    device: str = Field(description="Its device as configured, such as cuda:0 or auto.")
    state: WorkerState = Field(description="What it does; a draining one takes no more jobs.")


class Model(ModelSpec):
    """A model, the reuse modes it runs with, and where it is loaded."""

    modes: tuple[ReuseMode, ...] = Field(description="What `reuse.mode` may be.")
    loras: list[str] = Field(description="What `loras` may name.")
    loaded_on: list[LoadedOn] = Field(
        description="Live workers that have it in memory; jobs of a model that is nowhere wait until one has loaded it."
    )

    @classmethod
    def of(cls, spec: ModelSpec, loras: list[str], workers: Iterable[WorkerInfo]) -> "Model":
        """A model as clients see it; workers are those that have it in memory."""
        loaded_on = [LoadedOn(worker=worker.name, device=worker.device, state=worker.state) for worker in workers]
        shown = {"modes": get_args(ReuseMode), "loras": loras, "max_work": spec.work_limit, "loaded_on": loaded_on}
        return cls(**dict(spec) | shown)


class ModelList(BaseModel):
    """The models this server generates with; the first is the default."""

    models: list[Model] = Field(description="In the operator's order.")


class Health(BaseModel):
    """The process answers."""

    status: str = Field(description="ok or ready.")


class FieldProblem(BaseModel):
    """One wrong field."""

    field: str = Field(description="Its name; dots lead into parts of fields.")
    message: str = Field(description="What is wrong, what is allowed.")
    allowed: str | None = Field(None, description="What is allowed, by itself.")
    nearest: list[Any] = Field([], description="The nearest values that would do.")


class Problem(BaseModel):
    """RFC 9457 problem details; `code` is stable, the texts are not."""

    type: str = Field("about:blank", description="Always about:blank: `code` says what it is.")
    title: str = Field(description="The status in words.")
    status: int = Field(description="The HTTP status.")
    code: str = Field(description="Stable word for programs.")
    detail: str = Field(description="What is wrong and what to do.")
    instance: str = Field(description="Path of the request.")
    errors: list[FieldProblem] = Field([], description="Every wrong field, where fields are wrong.")
