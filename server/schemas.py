"""Bodies of the API."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field

from ripple_core.contract.job import JobError, JobRecord, JobStatus, Progress
from ripple_core.contract.metrics import JobMetrics
from ripple_core.contract.models import ModelSpec
from ripple_core.contract.request import ResolvedRequest, ReuseMode


class Links(BaseModel):
    """Where to go from a job; paths on this server."""

    self: str
    events: str
    video: str | None = Field(description="The MP4, once the job has succeeded.")


class Job(BaseModel):
    """A job as clients see it."""

    id: str
    status: JobStatus
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    progress: Progress
    request: ResolvedRequest
    error: JobError | None
    metrics: JobMetrics | None
    links: Links

    @classmethod
    def of(cls, record: JobRecord) -> "Job":
        """The public part of a record."""
        path = f"/jobs/{record.id}"
        video = f"{path}/video" if record.status == JobStatus.SUCCEEDED else None
        shown = record.model_dump(include=set(cls.model_fields) - {"links"})
        return cls(**shown, links=Links(self=path, events=f"{path}/events", video=video))


class JobPage(BaseModel):
    """Jobs, newest first."""

    jobs: list[Job]
    next_cursor: str | None = Field(description="Give it as `cursor` to get the next page; null on the last.")


class Model(ModelSpec):
    """A model and the reuse modes it runs with."""

    modes: tuple[ReuseMode, ...]


class ModelList(BaseModel):
    """The models this server generates with; the first is the default."""

    models: list[Model]


class Health(BaseModel):
    """The process answers."""

    status: str


class FieldProblem(BaseModel):
    """One wrong field."""

    field: str
    message: str
    allowed: str | None = None
    nearest: list[Any] = []


class Problem(BaseModel):
    """RFC 9457 problem details; `code` is stable, the texts are not."""

    type: str = "about:blank"
    title: str
    status: int
    code: str
    detail: str
    instance: str = Field(description="Path of the request.")
    errors: list[FieldProblem] = []
