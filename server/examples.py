"""Examples of answers for the OpenAPI document, made from the models so that they cannot become wrong."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import BaseModel

from ripple_core.contract.estimate import Estimate
from ripple_core.contract.job import JobRecord, JobStatus, Progress, QueuePlace
from ripple_core.contract.metrics import (
    AttentionMetrics,
    DeviceMetrics,
    JobMetrics,
    LatencySeconds,
    LayerCount,
    OutputMetrics,
    StepCount,
)
from ripple_core.contract.models import find_model
from ripple_core.contract.request import GenerateRequest
from ripple_core.contract.validate import resolve
from server.openai_schemas import OpenAIError, OpenAIErrorDetails, Video
from server.schemas import EstimateAnswer, FieldProblem, Job, JobPage, Problem

_WEEK = timedelta(days=7)
_REQUEST = resolve(
    GenerateRequest(prompt="a red circle moving left on a dark background", seed=1, num_inference_steps=1),
    find_model("builtin"),
)
_DENSE, _EXECUTED, _SAVED = 48_922_361_856, 19_568_944_742, 0.6
_COUNT = {"dense_flops": _DENSE, "executed_flops": _EXECUTED, "savings": _SAVED}
_METRICS = JobMetrics(
    latency_s=LatencySeconds(queue=0.2, text_encode=0.1, denoise=0.6, vae_decode=0.4, mp4_encode=0.1, total=1.4),
    attention=AttentionMetrics(
        **_COUNT,
        score_savings=0.62,
        mode="ripple",
        aggressiveness=0.5,
        backend="torch",
        dense_steps=0,
        fallbacks=[],
        by_step=[StepCount(step=0, dense=False, **_COUNT)],
        by_layer=[LayerCount(layer=0, **_COUNT)],
    ),
    device=DeviceMetrics(name="cpu (x86_64)", dtype="float32", peak_memory_bytes=1_204_224_000),
    output=OutputMetrics(frames=17, fps=8, width=128, height=128, duration_s=2.125, bytes=18_022, sha256="0" * 64),
)
_ACCEPTED_AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
_QUEUED = JobRecord(id="019b7c8e2d88" + "0" * 16, created_at=_ACCEPTED_AT, request=_REQUEST, estimated_s=1.2)
_SUCCEEDED = _QUEUED.model_copy(
    update={
        "status": JobStatus.SUCCEEDED,
        "started_at": _ACCEPTED_AT + timedelta(seconds=0.2),
        "finished_at": _ACCEPTED_AT + timedelta(seconds=1.4),
        "progress": Progress(stage="done", step=1, total_steps=1, fraction=1.0, eta_s=0.0),
        "metrics": _METRICS,
    }
)


def answers() -> dict[str, list[Any]]:
    """Examples by the name of their schema."""
    queued = Job.of(_QUEUED, QueuePlace(position=2, wait_s=4.8), _WEEK)
    succeeded = Job.of(_SUCCEEDED, None, _WEEK)
    estimate = Estimate(tokens=2304, dense_flops=_DENSE, executed_flops=_EXECUTED, seconds=1.2, based_on_jobs=9)
    wrong = FieldProblem(
        field="width", message="63 is not a multiple of 16 from 16 to 256", allowed="a multiple of 16", nearest=[48, 64]
    )
    problem = Problem(
        title="Unprocessable Entity",
        status=422,
        code="invalid_request",
        detail=f"width: {wrong.message}",
        instance="/generate",
        errors=[wrong],
    )
    error = OpenAIErrorDetails(
        message=problem.detail, type="invalid_request_error", param="width", code="invalid_request"
    )
    found: dict[str, Sequence[BaseModel]] = {
        "Job": [queued, succeeded],
        "JobPage": [JobPage(jobs=[succeeded], next_cursor=None)],
        "EstimateAnswer": [EstimateAnswer(request=_REQUEST, estimate=estimate, num_videos=1, queue_wait_s=0.0)],
        "Problem": [problem],
        "Video": [Video.of(_SUCCEEDED, int(_WEEK.total_seconds()))],
        "OpenAIError": [OpenAIError(error=error)],
    }
    return {name: [item.model_dump(mode="json") for item in items] for name, items in found.items()}
