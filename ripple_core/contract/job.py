"""The job record and the life it may lead."""

import secrets
import time
from datetime import UTC, datetime
from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, Field

from ripple_core.contract.metrics import JobMetrics
from ripple_core.contract.request import ResolvedRequest

JOB_ID_PATTERN = r"^[0-9a-f]{28}$"


class JobStatus(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"  # accepted and stored; no worker has it
    RUNNING = "running"  # claimed by a worker
    SUCCEEDED = "succeeded"  # the MP4 is complete
    FAILED = "failed"  # ended with an error code and message
    CANCELLED = "cancelled"  # ended by the user

    @property
    def is_terminal(self) -> bool:
        """True when the status can never change again."""
        return self not in TRANSITIONS


# running -> queued is the return of a job whose worker died.
TRANSITIONS: dict[JobStatus, frozenset[JobStatus]] = {
    JobStatus.QUEUED: frozenset({JobStatus.RUNNING, JobStatus.FAILED, JobStatus.CANCELLED}),
    JobStatus.RUNNING: frozenset({JobStatus.QUEUED, JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED}),
}

Stage = Literal["queued", "load", "text_encode", "denoise", "vae_decode", "mp4_encode", "done"]


class Progress(BaseModel):
    """How far a job is; step counts finished denoising steps, fraction is of the whole job in 0..1."""

    stage: Stage = "queued"
    step: int = 0
    total_steps: int = 0
    fraction: float = 0.0
    eta_s: float | None = Field(None, description="Estimated seconds left; null while unknown.")


class JobError(BaseModel):
    """Why a job failed: a stable code and a message for people."""

    code: str
    message: str


class JobRecord(BaseModel):
    """Everything stored of a job."""

    id: str
    status: JobStatus = JobStatus.QUEUED
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    progress: Progress = Progress()
    request: ResolvedRequest
    error: JobError | None = None
    metrics: JobMetrics | None = None
    # Which execution owns a running job, how often it was started, and whether it should stop.
    execution: str | None = None
    attempts: int = 0
    cancel_requested: bool = False


def utc_now() -> datetime:
    """The present, with its time zone."""
    return datetime.now(UTC)


def new_job_id() -> str:
    """28 hex digits that sort by creation time (48 bits of milliseconds) and cannot be guessed (64 random bits)."""
    return f"{time.time_ns() // 1_000_000:012x}{secrets.token_hex(8)}"
