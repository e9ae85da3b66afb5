"""The fleet at a glance: who works, what waits, what was saved today. Figures over time are Prometheus's."""

from collections.abc import Iterable
from datetime import date, datetime

from fastapi import APIRouter
from pydantic import BaseModel, Field

from ripple_core.contract.counters import Count
from ripple_core.contract.job import JobStatus, utc_now
from ripple_core.contract.workers import WorkerInfo, WorkerState
from ripple_core.versions import versions
from server.deps import Service, Settings
from server.errors import responses

router = APIRouter(tags=["operations"])


class Worker(BaseModel):
    """A live worker."""

    name: str = Field(description="Host, process and a random part.")
    host: str = Field(description="Name of its machine.")
    device: str = Field(description="As configured, such as cuda:0 or auto.")
    state: WorkerState = Field(description="What it does; a draining one takes no more jobs.")
    started_at: datetime = Field(description="When it began.")
    loaded: list[str] = Field(description="Ids of the models in its memory, the last one used at the end.")
    num_jobs: int = Field(description="How many it is at.")

    @classmethod
    def of(cls, info: WorkerInfo) -> "Worker":
        """What clients see of a worker; whose jobs it does is none of their business."""
        shown = {name: getattr(info, name) for name in cls.model_fields if name in WorkerInfo.model_fields}
        return cls(**shown, num_jobs=len(info.jobs))


class QueueDepth(BaseModel):
    """What waits."""

    num_queued: int = Field(description="Jobs that wait for a worker.")
    num_running: int = Field(description="Jobs that workers have.")
    work_s: float = Field(description="What those that wait take on one worker, as far as estimated.")
    wait_s: float | None = Field(
        description="Estimated seconds until a job of normal priority would start; null while unknown."
    )


class Today(BaseModel):
    """All jobs that have ended since midnight UTC, those deleted since included."""

    day: date = Field(description="Which day that is.")
    num_succeeded: int = Field(description="Videos made.")
    num_failed: int = Field(description="Jobs that failed.")
    num_cancelled: int = Field(description="Jobs that were cancelled.")
    attention_dense_flops: float = Field(description="What the attention of these videos takes without reuse.")
    attention_executed_flops: float = Field(description="What was left of it.")
    savings: float | None = Field(description="1 - executed / dense; null before the first video.")
    denoise_s: float = Field(description="Time of denoising.")
    video_s: float = Field(description="Length of the videos.")

    @classmethod
    def of(cls, day: date, counts: Iterable[Count]) -> "Today":
        """The day from its counters, over all models."""
        counted = list(counts)

        def total(name: str, **labels: str) -> float:
            return sum(one.amount for one in counted if one.name == name and labels.items() <= one.labels.items())

        dense, executed = total("attention_dense_flops"), total("attention_executed_flops")
        return cls(
            day=day,
            num_succeeded=round(total("jobs_ended", status=JobStatus.SUCCEEDED)),
            num_failed=round(total("jobs_ended", status=JobStatus.FAILED)),
            num_cancelled=round(total("jobs_ended", status=JobStatus.CANCELLED)),
            attention_dense_flops=dense,
            attention_executed_flops=executed,
            savings=1 - executed / dense if dense else None,
            denoise_s=total("denoise_seconds"),
            video_s=total("video_seconds"),
        )


class System(BaseModel):
    """The fleet at a glance."""

    version: str = Field(description="Of the server.")
    workers: list[Worker] = Field(description="Those with a fresh heartbeat.")
    queue: QueueDepth = Field(description="What waits.")
    today: Today = Field(description="What was done since midnight UTC.")
    dashboards_url: str | None = Field(description="Where the operator's dashboards are, if told.")


@router.get("/system", responses=responses())
def get_system(service: Service, settings: Settings) -> System:
    """Show workers, queue and the day's savings, over all API keys."""
    store, day = service.store, utc_now().date()
    num_queued, queued_ms = store.queued_work()
    return System(
        version=versions()["timeripple"],
        workers=[Worker.of(info) for info in sorted(store.workers(), key=lambda info: info.name)],
        queue=QueueDepth(
            num_queued=num_queued,
            num_running=store.counts()[JobStatus.RUNNING],
            work_s=queued_ms / 1000,
            wait_s=service.queue_wait_s(),
        ),
        today=Today.of(day, store.counters(day)),
        dashboards_url=settings.dashboards_url,
    )
