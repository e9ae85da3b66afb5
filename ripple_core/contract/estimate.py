"""What a request will cost: FLOPs from the model's shape, seconds from what like jobs took on these workers."""

import math
import statistics
import time
from dataclasses import dataclass, field

from pydantic import BaseModel, Field
from redis import Redis

from ripple_core.contract.metrics import JobMetrics
from ripple_core.contract.models import ModelSpec
from ripple_core.contract.request import ResolvedRequest, ReuseMode
from ripple_core.contract.store import PREFIX

_KEPT_JOBS = 200
_NEAREST_JOBS = 9
_FRESH_SECONDS = 1.0
# On the dial; jobs further away count by interpolation.
_NEAR_AGGRESSIVENESS = 0.05
_NEAR_TOKENS = 1.5


class PastJob(BaseModel):
    """What a finished job took."""

    mode: ReuseMode
    aggressiveness: float
    tokens: int
    savings: float
    transformer_flops: float
    seconds: float


class Estimate(BaseModel):
    """What a request will cost, before anything is spent."""

    tokens: int = Field(description="Video tokens of each attention call: latent frames x rows x columns.")
    dense_flops: int = Field(description="FLOPs of the video self-attention without reuse.")
    executed_flops: int | None = Field(
        description="FLOPs expected to be left, from the savings of like jobs; between two values of the dial that "
        "have been used, by interpolation. Null while no like job was at this value or above."
    )
    seconds: float | None = Field(
        description="Expected seconds on a worker that has the model loaded, from what like jobs took; null while no "
        "job of the model has finished."
    )
    based_on_jobs: int = Field(description="Number of finished jobs the seconds are taken from.")


@dataclass
class _Cached:
    jobs: list[PastJob] = field(default_factory=list)
    read_at: float = -math.inf


class Estimator:
    """Keeps what finished jobs took, by model, and estimates from it."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._cache: dict[str, _Cached] = {}

    def remember(self, spec: ModelSpec, request: ResolvedRequest, metrics: JobMetrics) -> None:
        """Add a finished job."""
        if spec.architecture is None:
            return
        latency = metrics.latency_s
        past = PastJob(
            mode=request.reuse.mode,
            aggressiveness=request.reuse.aggressiveness,
            tokens=_tokens(spec, request),
            savings=metrics.attention.savings,
            transformer_flops=_transformer_flops(spec, request, metrics.attention.savings),
            # What a like job takes that asks for no previews.
            seconds=latency.total - latency.queue - latency.load - latency.preview,
        )
        key = f"{PREFIX}history:{spec.id}"
        pipeline = self._redis.pipeline()
        pipeline.lpush(key, past.model_dump_json())
        pipeline.ltrim(key, 0, _KEPT_JOBS - 1)
        pipeline.execute()

    def estimate(self, spec: ModelSpec, request: ResolvedRequest) -> Estimate | None:
        """What a request will cost; None when the model's shape is not known."""
        if spec.architecture is None:
            return None
        jobs = self._past_jobs(spec.id)
        savings = _expected_savings(jobs, request, _tokens(spec, request))
        dense_flops = _num_forwards(request) * spec.architecture.attention_flops(_tokens(spec, request))
        # Unknown savings count as none: rather too long than too short.
        nearest = _nearest(jobs, _transformer_flops(spec, request, savings or 0.0))
        rates = [job.seconds / job.transformer_flops for job in nearest]
        seconds = statistics.median(rates) * _transformer_flops(spec, request, savings or 0.0) if rates else None
        return Estimate(
            tokens=_tokens(spec, request),
            dense_flops=dense_flops,
            executed_flops=None if savings is None else round(dense_flops * (1 - savings)),
            seconds=seconds,
            based_on_jobs=len(rates),
        )

    def _past_jobs(self, model_id: str) -> list[PastJob]:
        cached = self._cache.setdefault(model_id, _Cached())
        # Every submission asks; reading the list takes longer than all else it does.
        if time.monotonic() - cached.read_at > _FRESH_SECONDS:
            lines = self._redis.lrange(f"{PREFIX}history:{model_id}", 0, -1)
            cached.jobs = [PastJob.model_validate_json(line) for line in lines]
            cached.read_at = time.monotonic()
        return cached.jobs


def _tokens(spec: ModelSpec, request: ResolvedRequest) -> int:
    assert spec.architecture is not None
    return spec.architecture.tokens(request.width, request.height, request.num_frames)


def _num_forwards(request: ResolvedRequest) -> int:
    return request.num_inference_steps * (2 if request.is_guided else 1)


def _transformer_flops(spec: ModelSpec, request: ResolvedRequest, savings: float) -> float:
    """FLOPs of all transformer calls, the dense twin of a quality check included."""
    assert spec.architecture is not None
    tokens = _tokens(spec, request)
    linear, attention = spec.architecture.linear_flops(tokens), spec.architecture.attention_flops(tokens)
    one = linear + attention * (1 - savings)
    twin = linear + attention if request.quality_check else 0
    return _num_forwards(request) * float(one + twin)


def _expected_savings(jobs: list[PastJob], request: ResolvedRequest, tokens: int) -> float | None:
    reuse = request.reuse
    if reuse.mode == "dense" or reuse.aggressiveness == 0:
        return 0.0
    alike = [
        job for job in jobs if job.mode == reuse.mode and abs(math.log(job.tokens / tokens)) <= math.log(_NEAR_TOKENS)
    ]
    here = [job.savings for job in alike if abs(job.aggressiveness - reuse.aggressiveness) <= _NEAR_AGGRESSIVENESS]
    if here:
        return statistics.median(here[:_NEAREST_JOBS])
    return _interpolated_savings(alike, reuse.aggressiveness)


def _interpolated_savings(jobs: list[PastJob], aggressiveness: float) -> float | None:
    """Savings on the line between the next jobs below and above on the dial; it begins at 0, where nothing is saved.

    Where savings grow ever slower with the dial, as the built-in model's do, the line promises rather too little.
    """
    used = {job.aggressiveness for job in jobs}
    below = max((value for value in used if value < aggressiveness), default=0.0)
    upper = min((value for value in used if value > aggressiveness), default=None)
    if upper is None:
        return None
    low = _median_savings(jobs, below) if below > 0 else 0.0
    share = (aggressiveness - below) / (upper - below)
    return low + share * (_median_savings(jobs, upper) - low)


def _median_savings(jobs: list[PastJob], aggressiveness: float) -> float:
    return statistics.median([job.savings for job in jobs if job.aggressiveness == aggressiveness][:_NEAREST_JOBS])


def _nearest(jobs: list[PastJob], flops: float) -> list[PastJob]:
    """The jobs whose work is closest to this much, by ratio: small jobs take longer for each FLOP."""
    return sorted(jobs, key=lambda job: abs(math.log(job.transformer_flops / flops)))[:_NEAREST_JOBS]
