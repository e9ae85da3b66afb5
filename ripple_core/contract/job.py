"""The job record and the life it may lead."""

import secrets
import time
from datetime import UTC, datetime
from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from ripple_core.contract.metrics import JobMetrics
from ripple_core.contract.request import Priority, ResolvedRequest

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


# running -> queued is the return of a job whose worker died, or hands it back.
TRANSITIONS: dict[JobStatus, frozenset[JobStatus]] = {
    JobStatus.QUEUED: frozenset({JobStatus.RUNNING, JobStatus.FAILED, JobStatus.CANCELLED}),
    JobStatus.RUNNING: frozenset({JobStatus.QUEUED, JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED}),
}

Stage = Literal[
    "queued", "load", "text_encode", "denoise", "vae_decode", "quality_check", "mp4_encode", "store", "done"
]


class Progress(BaseModel):
    """How far a job is."""

    stage: Stage = Field("queued", description="What is being done.")
    step: int = Field(0, description="Denoising steps finished.")
    total_steps: int = Field(0, description="Denoising steps in all; 0 before a worker has the job.")
    fraction: float = Field(0.0, description="Share of the whole job that is done, 0 to 1.")
    eta_s: float | None = Field(None, description="Estimated seconds left; null while unknown.")


class QueuePlace(BaseModel):
    """Where a queued job stands."""

    position: int = Field(description="Number of jobs that start before it; 0 is the next.")
    wait_s: float | None = Field(
        description="Estimated seconds until it starts, from what like jobs took; null while nothing is known of those."
    )


class JobError(BaseModel):
    """Why a job failed: a stable code and a message for people."""

    code: str = Field(description="Stable word for programs, such as out_of_memory.")
    message: str = Field(description="What happened and what to do, for people.")


class WebhookDelivery(BaseModel):
    """One attempt to tell a webhook."""

    at: datetime = Field(description="When it was made.")
    status_code: int | None = Field(None, description="HTTP status of the answer; null without an answer.")
    error: str | None = Field(None, description="Why it failed; null when the answer was a 2xx.")


class Webhook(BaseModel):
    """Whom to tell when the job has ended, and how that went."""

    url: str = Field(description="As given in the request.")
    state: Literal["waiting", "pending", "delivered", "failed"] = Field(
        "waiting",
        description="waiting for the job to end; pending while attempts are left; delivered; failed for good.",
    )
    deliveries: list[WebhookDelivery] = Field([], description="Every attempt, oldest first.")
    next_attempt_at: datetime | None = Field(None, description="When the next attempt is due; null when none is.")


class JobRecord(BaseModel):
    """Everything stored of a job."""

    # What cannot be read is not quoted: it may be a prompt.
    model_config = ConfigDict(hide_input_in_errors=True)

    id: str
    status: JobStatus = JobStatus.QUEUED
    created_at: datetime
    # When it came back to the queue, if it did.
    queued_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    progress: Progress = Progress()
    request: ResolvedRequest
    error: JobError | None = None
    metrics: JobMetrics | None = None
    # The API key that sent it; none where keys are not in use.
    owner: str | None = None
    priority: Priority = "normal"
    # All jobs of the request, this one included, when it asked for several videos.
    batch: list[str] = []
    remixed_from: str | None = None
    # Seconds on a worker, as expected at submission; none where no job like it has finished yet.
    estimated_s: float | None = None
    webhook: Webhook | None = None
    # "worker/token" of the execution that owns a running job, or that ended it.
    execution: str | None = None
    # Starts, those not counted after which the worker handed the job back in good order.
    attempts: int = 0
    # How the attempt before ended, when that was not by success.
    last_failure: JobError | None = None
    cancel_requested: bool = False
    # The HTTP request that submitted it, and the trace that this is a part of.
    request_id: str | None = None
    traceparent: str | None = None

    @property
    def waiting_since(self) -> datetime:
        """When it came, or came back, to the queue."""
        return self.queued_at or self.created_at

    @property
    def attempt_id(self) -> str | None:
        """What the files of the execution are kept under."""
        return self.execution.rpartition("/")[2] if self.execution else None


def utc_now() -> datetime:
    """The present, with its time zone."""
    return datetime.now(UTC)


def new_job_id() -> str:
    """28 hex digits that sort by creation time (48 bits of milliseconds) and cannot be guessed (64 random bits)."""
    return f"{time.time_ns() // 1_000_000:012x}{secrets.token_hex(8)}"


def accepted_at(job_id: str) -> float:
    """Seconds since 1970 at which a job got its id."""
    return int(job_id[:12], 16) / 1000
