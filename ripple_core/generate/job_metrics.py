"""What was measured, in the words of the API."""

import hashlib
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
    StepCount,
)


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
