"""What a worker measures, for Prometheus: histograms of what its jobs took, and what befell it and its devices.

The counters of jobs are in Redis, with the API. The child process that owns the device has no metrics of its own: it
sends what it measured with each job.
"""

from collections.abc import Callable, Iterable
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Histogram, Info
from prometheus_client.process_collector import ProcessCollector

from ripple_core.contract.metrics import JobMetrics
from ripple_core.versions import versions
from worker.engine import LossReason
from worker.gpus import GpuCollector
from worker.webhooks import Attempted

# Jobs take from milliseconds, on the built-in model, to an hour.
SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600)
SHARES = (0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1)
_STAGES = ("text_encode", "denoise", "vae_decode", "mp4_encode", "store")
# Most jobs have none of these.
_RARE_STAGES = ("load", "preview", "quality_check")


class WorkerMetrics:
    """All metrics of one worker process; labels have few values: models, stages and words for causes.

    Args:
        model_ids: of the models that it takes jobs of. Their series begin at 0, as Prometheus sees no growth in a
            series that begins with its first job.
    """

    def __init__(self, model_ids: Iterable[str]) -> None:
        registry = self.registry = CollectorRegistry()

        def histogram(name: str, text: str, labels: list[str], buckets: tuple[float, ...] = SECONDS) -> Histogram:
            return Histogram(f"timeripple_{name}", text, labels, buckets=buckets, registry=registry)

        text = "Time of a stage of a succeeded job; of the queue, at every start."
        self._stages = histogram("stage_seconds", text, ["model", "stage"])
        self._jobs = histogram("job_seconds", "From acceptance to the finished file.", ["model"])
        self._steps = histogram("denoising_step_seconds", "Time of a denoising step.", ["model"])
        self._savings = histogram("job_savings_ratio", "Share of attention FLOPs that a job saved.", ["model"], SHARES)
        self._dial = histogram("job_aggressiveness_ratio", "Aggressiveness that a job asked for.", ["model"], SHARES)
        self._losses = Counter(
            "timeripple_engine_losses", "Ends of the device's process before its time.", ["reason"], registry=registry
        )
        self._webhooks = Counter(
            "timeripple_webhook_attempts", "Attempts to tell a webhook.", ["outcome"], registry=registry
        )
        Info("timeripple_build", "Versions of what runs.", registry=registry).info(versions())
        ProcessCollector("timeripple_worker", registry=registry)
        registry.register(GpuCollector())
        for model_id in model_ids:
            for stage in ("queue", *_STAGES, *_RARE_STAGES):
                self._stages.labels(model_id, stage)
            for by_model in (self._jobs, self._steps, self._savings, self._dial):
                by_model.labels(model_id)
        for reason in get_args(LossReason):
            self._losses.labels(reason)
        for outcome in get_args(Attempted):
            self._webhooks.labels(outcome)

    def started(self, model_id: str, wait_seconds: float) -> None:
        """Observe how long a job waited in the queue, when it starts."""
        self._stages.labels(model_id, "queue").observe(wait_seconds)

    def succeeded(self, model_id: str, metrics: JobMetrics) -> None:
        """Observe a job whose success has been recorded."""
        for stage in _STAGES:
            self._stages.labels(model_id, stage).observe(getattr(metrics.latency_s, stage))
        for stage in _RARE_STAGES:
            if seconds := getattr(metrics.latency_s, stage):
                self._stages.labels(model_id, stage).observe(seconds)
        self._jobs.labels(model_id).observe(metrics.latency_s.total)
        for seconds in metrics.denoising_step_s:
            self._steps.labels(model_id).observe(seconds)
        self._savings.labels(model_id).observe(metrics.attention.savings)
        self._dial.labels(model_id).observe(metrics.attention.aggressiveness)

    def engine_lost(self, reason: LossReason) -> None:
        """Count an end of the process that owns the device."""
        self._losses.labels(reason).inc()

    def webhook_attempted(self, outcome: Attempted) -> None:
        """Count an attempt to tell a webhook."""
        self._webhooks.labels(outcome).inc()

    def watch_engine(self, pid: Callable[[], int | None]) -> None:
        """Tell memory and CPU time of the process that owns the device as well."""
        # Without a process the collector finds nothing under /proc and tells nothing.
        ProcessCollector("timeripple_engine", pid=lambda: pid() or "none", registry=self.registry)
