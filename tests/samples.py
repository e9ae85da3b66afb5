"""A request and what a job of it took, for tests in which no worker runs."""

from ripple_core.contract.job import JobError, utc_now
from ripple_core.contract.metrics import AttentionMetrics, DeviceMetrics, JobMetrics, LatencySeconds, OutputMetrics
from ripple_core.contract.request import ResolvedRequest, ReuseSettings
from ripple_core.contract.workers import WorkerInfo, WorkerState

REQUEST = ResolvedRequest(
    prompt="a red circle",
    negative_prompt="",
    model="m",
    width=64,
    height=64,
    num_frames=17,
    fps=8,
    num_inference_steps=4,
    guidance_scale=3.0,
    seed=1,
    reuse=ReuseSettings(),
)
METRICS = JobMetrics(
    latency_s=LatencySeconds(denoise=1.5, total=2.0),
    attention=AttentionMetrics(
        dense_flops=4,
        executed_flops=3,
        savings=0.25,
        score_savings=0.5,
        mode="ripple",
        aggressiveness=0.5,
        dense_steps=0,
        fallbacks=[],
        by_step=[],
        by_layer=[],
    ),
    device=DeviceMetrics(name="cpu", dtype="float32", peak_memory_bytes=1),
    output=OutputMetrics(frames=17, fps=8, width=64, height=64, duration_s=2.125, bytes=10, sha256="x"),
)
FAILURE = JobError(code="worker_lost", message="The process that generates videos ended with exit code -9.")


def worker_info(
    name: str,
    state: WorkerState = "idle",
    models: tuple[str, ...] = (),
    loaded: tuple[str, ...] = (),
    jobs: tuple[str, ...] = (),
) -> WorkerInfo:
    """What a worker might tell of itself."""
    return WorkerInfo(
        name=name,
        host="host",
        pid=1,
        device="cpu",
        state=state,
        started_at=utc_now(),
        told_at=utc_now(),
        models=list(models),
        loaded=list(loaded),
        jobs=list(jobs),
    )
