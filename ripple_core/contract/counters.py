"""Counters over all jobs ever, by model: exact, since the change of status that ends a job adds to them."""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import get_args

from ripple_core.contract.errors import (
    GenerationFailed,
    InvalidOutput,
    LoraLoadFailed,
    ModelLoadFailed,
    OutOfMemory,
    RippleError,
    Stalled,
    StorageFull,
    StorageUnavailable,
    WorkerLost,
)
from ripple_core.contract.job import JobStatus
from ripple_core.contract.metrics import JobMetrics, ModeThatRan

# By quarters of the dial.
_BY_DIAL = (
    "attention_dense_flops",
    "attention_executed_flops",
    "denoise_seconds",
    "video_seconds",
    "estimated_denoise_seconds",
    "dense_denoise_estimate_seconds",
)
_SECOND_TRIES = (
    ("invalid_output", "dense_attention"),
    ("out_of_memory", "vae_tiling"),
    ("out_of_memory", "unloaded_models"),
)
_BACKENDS = ("torch", "triton", "none")
_QUARTERS = ("0", "0.25", "0.5", "0.75", "1")
_FAILURES: tuple[type[RippleError], ...] = (
    GenerationFailed,
    InvalidOutput,
    LoraLoadFailed,
    ModelLoadFailed,
    OutOfMemory,
    Stalled,
    WorkerLost,
    StorageUnavailable,
    StorageFull,
)


@dataclass(frozen=True)
class Count:
    """An amount to add to a counter, or a counter as it stands.

    Attributes:
        name: of the counter.
        amount: at least 0.
        labels: of few values each; the store adds the model.
    """

    name: str
    amount: float = 1
    labels: Mapping[str, str] = field(default_factory=dict)


def ended(status: JobStatus, error_code: str = "") -> Count:
    """One job that came to an end."""
    return Count("jobs_ended", 1, {"status": status, "error_code": error_code})


def measured(metrics: JobMetrics) -> list[Count]:
    """What a succeeded job adds."""
    attention = metrics.attention
    ran = Count("attention_jobs", 1, {"mode": attention.mode, "backend": attention.backend or "none"})
    fallbacks = [Count("attention_fallback_calls", one.calls, {"reason": one.reason}) for one in attention.fallbacks]
    tries = [Count("second_tries", 1, {"reason": one.reason, "remedy": one.remedy}) for one in metrics.retries]
    return [ran, *fallbacks, *tries, *_by_dial(metrics)]


def from_zero(model_id: str) -> list[Count]:
    """What a model's counters begin with: Prometheus sees no growth in a series that begins with its first job."""
    counts = [
        *(ended(status) for status in (JobStatus.SUCCEEDED, JobStatus.CANCELLED)),
        *(ended(JobStatus.FAILED, error.code) for error in _FAILURES),
        Count("attempts_failed", labels={"error_code": WorkerLost.code}),
        *(
            Count("attention_jobs", labels={"mode": mode, "backend": backend})
            for mode in get_args(ModeThatRan)
            for backend in _BACKENDS
        ),
        *(Count("second_tries", labels={"reason": reason, "remedy": remedy}) for reason, remedy in _SECOND_TRIES),
        *(Count(name, labels={"aggressiveness": share}) for name in _BY_DIAL for share in _QUARTERS),
    ]
    return [replace(count, amount=0, labels={"model": model_id, **count.labels}) for count in counts]


def quarter(aggressiveness: float) -> str:
    """The dial as a label of five values: 0, or the next quarter above."""
    return f"{math.ceil(aggressiveness * 4) / 4:g}"


def _by_dial(metrics: JobMetrics) -> list[Count]:
    attention, estimate = metrics.attention, metrics.dense_denoise_estimate_s
    # The jobs of a batch have the same seconds, which count once.
    seconds = metrics.latency_s.denoise / metrics.batch_size
    amounts: dict[str, float] = {
        "attention_dense_flops": attention.dense_flops,
        "attention_executed_flops": attention.executed_flops,
        "denoise_seconds": seconds,
        "video_seconds": metrics.output.duration_s,
    }
    if estimate is not None:
        # A ratio of the two is over the same jobs.
        amounts |= {
            "estimated_denoise_seconds": seconds,
            "dense_denoise_estimate_seconds": estimate / metrics.batch_size,
        }
    labels = {"aggressiveness": quarter(attention.aggressiveness)}
    return [Count(name, amount, labels) for name, amount in amounts.items()]


def encode(counts: Iterable[Count]) -> str:
    """As the script that changes a status takes them."""
    # Amounts as texts: a Lua number printed would lose digits.
    return json.dumps([text for count in counts for text in (_field(count), str(count.amount))])


def decode(field: bytes, value: bytes) -> Count:
    """A counter as it stands, its model among the labels."""
    model, _, text = field.decode().partition("\t")
    name, labels = json.loads(text)
    return Count(name, float(value), {"model": model, **labels})


def _field(count: Count) -> str:
    return json.dumps([count.name, dict(sorted(count.labels.items()))])
