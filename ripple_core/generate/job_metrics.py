"""What was measured, in the words of the API."""

import hashlib
import statistics
from pathlib import Path
from typing import cast

import numpy as np

from ripple_core.attention import SavingsReport
from ripple_core.contract.metrics import (
    AttentionMetrics,
    DenseHeads,
    Fallback,
    LayerCount,
    ModeThatRan,
    OutputMetrics,
    QualityMetrics,
    StepCount,
)
from ripple_core.generate.run import GeneratedFrames


def output_metrics(path: Path, frames: np.ndarray, fps: int) -> OutputMetrics:
    """Of a written file and the frames in it."""
    num_frames, height, width, _ = frames.shape
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return OutputMetrics(
        frames=num_frames,
        fps=fps,
        width=width,
        height=height,
        duration_s=num_frames / fps,
        bytes=path.stat().st_size,
        sha256=digest,
    )


def dense_denoise_estimate_s(
    video: GeneratedFrames, quality: QualityMetrics | None, has_step_cache: bool
) -> float | None:
    """What denoising would have taken without reuse: the twin's time, or that of steps like the video's dense ones.

    The lower median of these, without the first step of all: it prepares the loop, and may compile. A step cache leaves
    out work in some steps and not in others, so that no step stands for all.
    """
    if has_step_cache:
        return None
    if quality is not None:
        return quality.dense_denoise_s
    dense = [video.step_seconds[step] for step in video.report.dense_steps if 0 < step < len(video.step_seconds)]
    return statistics.median_low(dense) * len(video.step_seconds) if dense else None


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
