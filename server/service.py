"""What the API does, without HTTP."""

from dataclasses import dataclass
from pathlib import Path

from redis import Redis

from ripple_core.contract.errors import NoVideo, UnknownModel, VideoExpired, VideoNotReady
from ripple_core.contract.job import JobRecord, JobStatus, new_job_id, utc_now
from ripple_core.contract.models import BUILTIN_MODEL_ID, ModelSpec
from ripple_core.contract.queue import JobQueue
from ripple_core.contract.request import GenerateRequest
from ripple_core.contract.store import JobStore
from ripple_core.contract.validate import resolve
from ripple_core.contract.videos import VideoStore


@dataclass(frozen=True)
class JobService:
    """Submits, reads, cancels and deletes jobs.

    Raises:
        redis.RedisError: from every method, when Redis cannot be reached.
    """

    redis: Redis
    store: JobStore
    queue: JobQueue
    videos: VideoStore
    model: ModelSpec

    def submit(self, request: GenerateRequest) -> JobRecord:
        """Check, store and queue a request; the record and its queue message appear together or not at all.

        Raises:
            InvalidRequest: with every wrong field.
            UnknownModel: when this server does not have the model.
        """
        asked = BUILTIN_MODEL_ID if request.model == "builtin" else request.model
        if asked not in (None, self.model.id):
            raise UnknownModel(f"This server has no model {request.model!r}; it has: {self.model.id}.")
        record = JobRecord(id=new_job_id(), created_at=utc_now(), request=resolve(request, self.model))
        transaction = self.redis.pipeline()
        self.store.add(record, transaction)
        self.queue.send(record.id, transaction)
        transaction.execute()
        return record

    def page(self, status: JobStatus | None, cursor: str | None, limit: int) -> tuple[list[JobRecord], str | None]:
        """Records newest first, and the cursor of the next page if there is one."""
        records = self.store.page(status, cursor, limit + 1)
        more = len(records) > limit
        return records[:limit], records[limit - 1].id if more else None

    def has_told_all(self, job_id: str, event_id: str) -> bool:
        """True when the job has ended and no event follows this one.

        Raises:
            JobNotFound: when there is no such job.
        """
        return self.store.get(job_id).status.is_terminal and not self.store.has_events_after(job_id, event_id)

    def video(self, job_id: str) -> Path:
        """The finished MP4.

        Raises:
            JobNotFound: when there is no such job.
            VideoNotReady: while it is queued or running.
            NoVideo: when it failed or was cancelled.
            VideoExpired: when the video has been deleted since.
        """
        record = self.store.get(job_id)
        if not record.status.is_terminal:
            raise VideoNotReady(f"The job is {record.status}; follow /jobs/{job_id}/events until it has succeeded.")
        if record.status != JobStatus.SUCCEEDED:
            reason = f": {record.error.message}" if record.error else "."
            raise NoVideo(f"The job was {record.status} and has no video{reason}")
        path = self.videos.find(job_id)
        if path is None:
            raise VideoExpired("The video was kept for its time and has been deleted; send the request again.")
        return path

    def cancel_or_delete(self, job_id: str) -> JobRecord | None:
        """Cancel an active job and return its record; delete a finished one with its video and return None.

        Raises:
            JobNotFound: when there is no such job.
        """
        if not self.store.get(job_id).status.is_terminal:
            return self.store.request_cancel(job_id)
        self.videos.delete(job_id)
        self.store.delete(job_id)
        return None
