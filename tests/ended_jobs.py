"""What the page shows, made without a worker: jobs that have ended as a test wants, with videos that play."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from fleet import SMALL, Fleet
from samples import METRICS

from ripple_core.contract.job import JobError
from ripple_core.contract.metrics import JobMetrics, LayerCount, OutputMetrics, StepCount
from ripple_core.contract.request import OutputSettings
from ripple_core.contract.store import JobStore
from ripple_core.contract.videos import SPRITESHEET, THUMBNAIL, LocalVideoStore
from ripple_core.generate import write_video
from ripple_core.generate.previews import write_spritesheet, write_thumbnail

FPS = 8
Finish = Callable[..., str]


def moving_square(shift: int = 0, num_frames: int = 17) -> np.ndarray:
    """uint8 [num_frames, 64, 96, 3]: a bright square on its way over a grey ground."""
    frames = np.full((num_frames, 64, 96, 3), 60, np.uint8)
    for index, frame in enumerate(frames):
        left = 4 + 4 * index + shift
        frame[20:44, left : left + 16] = (230, 60, 60)
    return frames


def metrics_of(frames: np.ndarray, folder: Path, savings: float) -> JobMetrics:
    """As of a job that saved this share, every step and layer alike."""
    dense = 10_000_000_000
    count = {"dense_flops": dense, "executed_flops": round(dense * (1 - savings)), "savings": savings}
    attention = METRICS.attention.model_copy(
        update={
            **count,
            "mode": "ripple" if savings else "dense",
            "by_step": [StepCount(step=step, dense=savings == 0, **count) for step in range(4)],
            "by_layer": [LayerCount(layer=layer, **count) for layer in range(3)],
        }
    )
    num_frames, height, width, _ = frames.shape
    output = OutputMetrics(
        frames=num_frames,
        fps=FPS,
        width=width,
        height=height,
        duration_s=num_frames / FPS,
        bytes=(folder / "video.mp4").stat().st_size,
        sha256="0" * 64,
    )
    return METRICS.model_copy(update={"attention": attention, "output": output})


def submit(fleet: Fleet, **fields: Any) -> str:
    """A job that waits."""
    return fleet.submit(**{"height": 64, "width": 96, "num_frames": 17, **fields})


def end(fleet: Fleet, job_id: str, frames: np.ndarray, savings: float = 0.62) -> None:
    """What a worker does that succeeds with these frames."""
    store = JobStore(fleet.redis_client)
    assert store.claim(job_id, "e", "worker")
    with LocalVideoStore(fleet.videos).staging(job_id, "e") as staged:
        write_video(frames, staged.folder / "video.mp4", FPS, OutputSettings(crf=4))
        write_thumbnail(frames, staged.folder / THUMBNAIL)
        write_spritesheet(frames, staged.folder / SPRITESHEET)
        metrics = metrics_of(frames, staged.folder, savings)
        staged.publish()
    assert store.succeed(job_id, "worker/e", metrics, SMALL["num_inference_steps"])


def finish(fleet: Fleet, frames: np.ndarray, savings: float = 0.62, **fields: Any) -> str:
    """A new job that has succeeded with these frames."""
    job_id = submit(fleet, **fields)
    end(fleet, job_id, frames, savings)
    return job_id


def fail(fleet: Fleet, error: JobError, **fields: Any) -> str:
    """A new job that has failed."""
    job_id, store = submit(fleet, **fields), JobStore(fleet.redis_client)
    assert store.claim(job_id, "e", "worker")
    assert store.fail(job_id, "worker/e", error)
    return job_id
