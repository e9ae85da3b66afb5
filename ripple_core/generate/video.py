"""One request to an MP4 and everything measured on the way."""

import hashlib
import time
from pathlib import Path
from typing import cast

from ripple_core.attention import SavingsReport
from ripple_core.contract.job import Progress
from ripple_core.contract.metrics import (
    AttentionMetrics,
    DenseHeads,
    DeviceMetrics,
    Fallback,
    JobMetrics,
    LayerCount,
    ModeThatRan,
    OutputMetrics,
    StepCount,
)
from ripple_core.contract.request import ResolvedRequest
from ripple_core.generate.load import LoadedModel
from ripple_core.generate.mp4 import write_mp4
from ripple_core.generate.run import ProgressCallback, StopCallback, generate_frames

_FRACTION_DECODED = 0.98


def generate_video(
    model: LoadedModel,
    request: ResolvedRequest,
    path: Path,
    on_progress: ProgressCallback = lambda _: None,
    should_stop: StopCallback = lambda: False,
) -> JobMetrics:
    """Generate one video into `path`.

    Raises:
        GenerationCancelled: when should_stop said so.
        OutOfMemory: with what to lower.
        OSError: when the MP4 cannot be written.
    """
    began = time.monotonic()
    generated = generate_frames(model, request, on_progress, should_stop)
    steps = request.num_inference_steps
    on_progress(Progress(stage="mp4_encode", step=steps, total_steps=steps, fraction=_FRACTION_DECODED))
    encode_began = time.monotonic()
    write_mp4(generated.frames, path, request.fps)
    ended = time.monotonic()
    num_frames, height, width, _ = generated.frames.shape
    content = path.read_bytes()
    return JobMetrics(
        latency_s=generated.latency.model_copy(
            update={"mp4_encode": ended - encode_began, "total": ended - began},
        ),
        attention=attention_metrics(generated.report, calibrated=model.profile is not None),
        device=DeviceMetrics(
            name=model.device_name,
            dtype=str(model.dtype).removeprefix("torch."),
            peak_memory_bytes=generated.peak_memory_bytes,
        ),
        output=OutputMetrics(
            frames=num_frames,
            fps=request.fps,
            width=width,
            height=height,
            duration_s=num_frames / request.fps,
            bytes=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
        ),
    )


def attention_metrics(report: SavingsReport, calibrated: bool) -> AttentionMetrics:
    """The counter's report in the words of the API; calibrated tells whether the model has a profile."""
    dense = set(report.dense_steps)
    return AttentionMetrics(
        dense_flops=report.total.dense_flops,
        executed_flops=report.total.executed_flops,
        savings=report.savings,
        score_savings=report.score_savings,
        mode=cast(ModeThatRan, report.mode),
        aggressiveness=report.aggressiveness,
        calibrated=calibrated and report.mode == "ripple" and report.savings != 0,
        dense_steps=len(dense),
        fallbacks=[Fallback(reason=reason, calls=calls) for reason, calls in report.fallbacks.items()],
        backend=report.backend,
        dense_heads=[DenseHeads(reason=reason, heads=heads) for reason, heads in report.dense_heads.items()],
        by_step=[
            StepCount(
                step=step,
                dense=step in dense,
                dense_flops=count.dense_flops,
                executed_flops=count.executed_flops,
                savings=count.savings,
            )
            for step, count in report.by_step.items()
        ],
        by_layer=[
            LayerCount(
                layer=layer,
                dense_flops=count.dense_flops,
                executed_flops=count.executed_flops,
                savings=count.savings,
            )
            for layer, count in report.by_layer.items()
        ],
    )
