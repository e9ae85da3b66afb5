"""What the API does, without HTTP."""

import hashlib
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from structlog.contextvars import get_contextvars

from ripple_core.contract.errors import (
    JobNotFound,
    NoImage,
    NoPreview,
    NoVideo,
    RippleError,
    UnknownModel,
    VideoExpired,
    VideoNotReady,
)
from ripple_core.contract.estimate import Estimate, Estimator
from ripple_core.contract.job import JobRecord, JobStatus, QueuePlace, Webhook, new_job_id, utc_now
from ripple_core.contract.links import signing_secret
from ripple_core.contract.model_config import ModelConfig
from ripple_core.contract.models import ModelSpec
from ripple_core.contract.queue import JobQueue
from ripple_core.contract.request import GenerateRequest, ResolvedRequest
from ripple_core.contract.retention import ServingMarks
from ripple_core.contract.store import JobStore
from ripple_core.contract.submission import IdempotencyKey, Submissions
from ripple_core.contract.validate import resolve
from ripple_core.contract.videos import VideoStore
from ripple_core.contract.webhooks import check_webhook_url
from ripple_core.contract.workers import WorkerInfo
from ripple_core.tracing import traceparent
from server.access import Caller
from server.images import as_png, read_data_url

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Order:
    """A submission: what is asked for, and by whom.

    Attributes:
        request: as sent.
        caller: who sent it.
        image: content of the file that came with a form.
        idempotency_key: the client's own name for the submission.
        remixed_from: the record whose settings and image are taken over.
    """

    request: GenerateRequest
    caller: Caller
    image: bytes | None = None
    idempotency_key: str | None = None
    remixed_from: JobRecord | None = None


@dataclass(frozen=True)
class JobService:
    """Submits, reads, cancels and deletes jobs.

    Raises:
        redis.RedisError: from every method, when Redis cannot be reached.
    """

    store: JobStore
    queue: JobQueue
    submissions: Submissions
    estimator: Estimator
    videos: VideoStore
    serving: ServingMarks
    models: tuple[ModelConfig, ...]
    lora_dir: Path | None = None
    webhook_allow: tuple[str, ...] = ()
    log_prompts: bool = False

    def submit(self, order: Order) -> JobRecord:
        """Check, store and queue a request; records and queue messages appear together or not at all.

        Returns:
            The first job of the request, or the one that its idempotency key already stands for.

        Raises:
            InvalidRequest: with every wrong field.
            UnknownModel: when this server does not have the model.
            IdempotencyConflict: when the key was used with another body.
            QueueFull: when no more may wait.
            TooManyActiveJobs: when the caller's key has as many jobs as it may.
        """
        image, resolved = self._resolve(order)
        records = self._records(order, resolved)
        try:
            if image is not None:
                for record in records:
                    self.videos.put_image(record.id, image)
            job_id = self.submissions.submit(records, order.caller.max_active_jobs, _idempotency_key(order))
        except RippleError:
            # After any other error the job may have been accepted; what is left of one that was not goes in an hour.
            self._drop_images(records, image)
            raise
        if job_id != records[0].id:
            self._drop_images(records, image)
            return self.store.get(job_id)
        for record in records:
            prompt = {"prompt": record.request.prompt} if self.log_prompts else {}
            logger.info("job accepted", extra={"job_id": record.id, "model": record.request.model} | prompt)
        return records[0]

    def estimate(self, request: GenerateRequest, image: bytes | None) -> tuple[ResolvedRequest, Estimate | None]:
        """What a request would be filled up to and cost; nothing is stored.

        Raises:
            InvalidRequest, UnknownModel: as `submit` would.
        """
        # Nobody will be told, so the address is not looked up.
        order = Order(request.model_copy(update={"webhook": None}), Caller(), image)
        _, resolved = self._resolve(order, needs_image=False)
        return resolved, self.estimator.estimate(self.find_model(request.model), resolved)

    def queue_wait_s(self) -> float | None:
        """Estimated seconds until a job of normal priority that came now would start; None while unknown."""
        return self.store.wait_at_end()

    def get(self, job_id: str, caller: Caller) -> JobRecord:
        """One job of the caller's.

        Raises:
            JobNotFound: when there is no such job, or it is another key's.
            JobExpired: when it was kept for its time.
        """
        record = self.store.get(job_id)
        if not caller.may_see(record):
            raise JobNotFound(job_id)
        return record

    def page(
        self, caller: Caller, status: JobStatus | None, after: str | None, limit: int, oldest_first: bool = False
    ) -> tuple[list[JobRecord], bool]:
        """The caller's records, newest first, and whether more follow."""
        owner = caller.owner if caller.restricted else None
        records = self.store.page(status, after, limit + 1, owner, oldest_first)
        return records[:limit], len(records) > limit

    def place(self, record: JobRecord) -> QueuePlace | None:
        """Where a queued job stands."""
        return self.store.place(record.id) if record.status == JobStatus.QUEUED else None

    def has_told_all(self, job_id: str, event_id: str) -> bool:
        """True when the job has ended and no event follows this one.

        Raises:
            JobNotFound: when there is no such job.
        """
        return self.store.get(job_id).status.is_terminal and not self.store.has_events_after(job_id, event_id)

    def file(self, record: JobRecord, name: str) -> Path:
        """A file of a job that has succeeded.

        Raises:
            VideoNotReady: while it is queued or running.
            NoVideo: when it failed or was cancelled.
            VideoExpired: when the files have been deleted since.
        """
        self.require_video(record)
        assert record.attempt_id is not None
        path = self.videos.find(record.id, record.attempt_id, name)
        if path is None:
            raise VideoExpired("The video was kept for its time and has been deleted; send the request again.")
        return path

    def image(self, record: JobRecord) -> bytes:
        """What the job begins from, as PNG.

        Raises:
            NoImage: when it begins from none, or that has been deleted.
        """
        path = self.videos.find_image(record.id) if record.request.image_sha256 is not None else None
        try:
            if path is not None:
                return path.read_bytes()
        except FileNotFoundError:
            # Deleted since it was found.
            pass
        raise NoImage("The job began from no image, or it has been deleted.")

    def preview(self, record: JobRecord) -> bytes:
        """The last preview of a running job, as animated WebP.

        Raises:
            NoPreview: when the job did not ask for previews, has none yet, or has ended.
        """
        if not record.request.preview:
            raise NoPreview("The job did not ask for previews; send a request with `preview: true`.")
        content = self.store.preview(record.id)
        if content is not None:
            return content
        if record.status.is_terminal:
            instead = f"; fetch /jobs/{record.id}/video" if record.status == JobStatus.SUCCEEDED else ""
            raise NoPreview(f"The job has ended, and its previews with it{instead}.")
        when = f"wait for an event `preview` of /jobs/{record.id}/events"
        raise NoPreview(f"There is no preview at the moment; {when}. A model that is offloaded makes none.")

    def require_video(self, record: JobRecord) -> None:
        """Raise VideoNotReady or NoVideo unless the job has succeeded."""
        if not record.status.is_terminal:
            raise VideoNotReady(f"The job is {record.status}; follow /jobs/{record.id}/events until it has succeeded.")
        if record.status != JobStatus.SUCCEEDED:
            reason = f": {record.error.message}" if record.error else "."
            raise NoVideo(f"The job was {record.status} and has no video{reason}")

    def signing_secret(self) -> str:
        """What links to files are signed with."""
        return signing_secret(self.store.redis)

    def cancel(self, record: JobRecord) -> JobRecord:
        """Cancel a queued job at once and ask a running one to stop; a finished one stays as it is."""
        return self.store.request_cancel(record.id)

    def delete(self, job_id: str) -> bool:
        """Forget an ended job with its files; False when it has not ended."""
        if not self.store.get(job_id).status.is_terminal:
            return False
        self.videos.delete(job_id)
        return self.store.delete(job_id)

    @property
    def loras(self) -> list[str]:
        """Names that requests may ask for."""
        if self.lora_dir is None or not self.lora_dir.is_dir():
            return []
        return sorted(path.stem for path in self.lora_dir.glob("*.safetensors"))

    def find_model(self, name: str | None) -> ModelSpec:
        """The model a request means: by its id or the name it is configured by, or the first one.

        Raises:
            UnknownModel: when this server does not have it.
        """
        if name is None:
            return self.models[0].spec
        by_name = {config.source: config.spec for config in reversed(self.models)}
        by_name |= {config.spec.id: config.spec for config in self.models}
        if name not in by_name:
            known = ", ".join(config.spec.id for config in self.models)
            raise UnknownModel(f"This server has no model {name!r}; it has: {known}.")
        return by_name[name]

    def loaded_on(self) -> dict[str, list[WorkerInfo]]:
        """Live workers that have a model in memory, by its id."""
        workers = self.store.workers()
        return {
            config.spec.id: [worker for worker in workers if config.spec.id in worker.loaded] for config in self.models
        }

    def _resolve(self, order: Order, needs_image: bool = True) -> tuple[bytes | None, ResolvedRequest]:
        request = order.request
        spec = self.find_model(request.model)
        if request.webhook is not None:
            check_webhook_url(request.webhook.url, self.webhook_allow)
        image = self._image(order)
        digest = hashlib.sha256(image).hexdigest() if image is not None else None
        return image, resolve(request, spec, digest, self.loras if request.loras else (), needs_image)

    def _image(self, order: Order) -> bytes | None:
        if order.image is not None:
            return as_png(order.image, "image")
        if order.request.image is not None:
            return as_png(read_data_url(order.request.image, "image"), "image")
        if order.remixed_from is not None and order.remixed_from.request.image_sha256 is not None:
            kept = self.videos.find_image(order.remixed_from.id)
            if kept is None:
                raise VideoExpired("The image this video began from has been deleted; send the request again with it.")
            return kept.read_bytes()
        return None

    def _records(self, order: Order, resolved: ResolvedRequest) -> list[JobRecord]:
        request = order.request
        estimate = self.estimator.estimate(self.find_model(request.model), resolved)
        # Ids of one millisecond sort by chance, and queued jobs start in their order.
        ids = sorted(new_job_id() for _ in range(request.n))
        return [
            JobRecord(
                id=job_id,
                created_at=utc_now(),
                request=resolved.model_copy(update={"seed": (resolved.seed + index) % 2**53}),
                owner=order.caller.owner,
                priority=request.priority,
                batch=ids if request.n > 1 else [],
                remixed_from=order.remixed_from.id if order.remixed_from else None,
                estimated_s=estimate.seconds if estimate else None,
                webhook=Webhook(url=request.webhook.url) if request.webhook else None,
                request_id=get_contextvars().get("request_id"),
                traceparent=traceparent(),
            )
            for index, job_id in enumerate(ids)
        ]

    def _drop_images(self, records: Iterable[JobRecord], image: bytes | None) -> None:
        if image is not None:
            for record in records:
                self.videos.delete(record.id)


def _idempotency_key(order: Order) -> IdempotencyKey | None:
    if order.idempotency_key is None:
        return None
    content: dict[str, Any] = {
        # What is left out depends on the model: not the same as its default when said.
        "request": order.request.model_dump_json(exclude_unset=True),
        "image": hashlib.sha256(order.image).hexdigest() if order.image is not None else None,
        "remixed_from": order.remixed_from.id if order.remixed_from else None,
    }
    fingerprint = hashlib.sha256(repr(content).encode()).hexdigest()
    return IdempotencyKey(order.caller.owner, order.idempotency_key, fingerprint)
