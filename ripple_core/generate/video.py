"""One request to a video file with its pictures, and everything measured on the way."""

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from PIL import Image

from ripple_core.attention import SavingsReport
from ripple_core.contract.errors import GenerationFailed
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
    QualityMetrics,
    StepCount,
)
from ripple_core.contract.request import ResolvedRequest
from ripple_core.contract.videos import SPRITESHEET, THUMBNAIL, video_file
from ripple_core.generate.encode import write_video
from ripple_core.generate.first_frame import read_first_frame
from ripple_core.generate.load import LoadedModel
from ripple_core.generate.loras import loras_on
from ripple_core.generate.previews import write_spritesheet, write_thumbnail
from ripple_core.generate.quality import check_quality
from ripple_core.generate.run import GeneratedFrames, ProgressCallback, StopCallback, generate_frames

_FRACTION_DECODED = 0.98


def generate_video(
    model: LoadedModel,
    request: ResolvedRequest,
    folder: Path,
    on_progress: ProgressCallback = lambda _: None,
    should_stop: StopCallback = lambda: False,
    image: Path | None = None,
    lora_dir: Path | None = None,
) -> JobMetrics:
    """Generate one video with its thumbnail and sprite sheet.

    The files come last: whatever fails before, the quality check included, leaves the folder empty. The metrics'
    `attention` and `device` are those of the video itself; the dense twin is in `quality` and in the stage
    `quality_check` alone.

    Args:
        model: from `load_model`.
        request: fully resolved.
        folder: where `video_file(...)`, THUMBNAIL and SPRITESHEET are written.
        on_progress: called at every change of stage and after every denoising step.
        should_stop: asked after every denoising step.
        image: what the video begins from, for requests that brought one.
        lora_dir: holds the files of the LoRAs that requests name.

    Raises:
        GenerationCancelled: when should_stop said so.
        GenerationFailed: when the image is gone, or a LoRA cannot be used.
        OutOfMemory: with what to lower.
        OSError: when the image cannot be read, or a file cannot be written.
    """
    job = _Job(model, request, on_progress, should_stop, time.monotonic())
    rendered = job.render(_first_frame(request, image), lora_dir)
    frames, steps = rendered.video.frames, request.num_inference_steps
    on_progress(Progress(stage="mp4_encode", step=steps, total_steps=steps, fraction=_FRACTION_DECODED))
    encode_began = time.monotonic()
    path = folder / video_file(request.output.format)
    write_video(frames, path, request.fps, request.output)
    write_thumbnail(frames, folder / THUMBNAIL)
    write_spritesheet(frames, folder / SPRITESHEET)
    ended = time.monotonic()
    stages = rendered.seconds | {"mp4_encode": ended - encode_began, "total": ended - job.began}
    return JobMetrics(
        latency_s=rendered.video.latency.model_copy(update=stages),
        attention=attention_metrics(rendered.video.report, calibrated=model.profile is not None),
        device=DeviceMetrics(
            name=model.device_name,
            dtype=str(model.dtype).removeprefix("torch."),
            peak_memory_bytes=rendered.video.peak_memory_bytes,
        ),
        output=_output_metrics(path, frames, request.fps),
        quality=rendered.quality,
    )


def _first_frame(request: ResolvedRequest, image: Path | None) -> Image.Image | None:
    if request.image_sha256 is not None and image is None:
        raise GenerationFailed("The image that the video begins from is gone; send the request again.")
    return read_first_frame(image, request.width, request.height) if image else None


@dataclass(frozen=True)
class _Rendered:
    """A video's frames, seconds of the stages besides its own, and how far it is from its dense twin."""

    video: GeneratedFrames
    seconds: dict[str, float]
    quality: QualityMetrics | None


@dataclass(frozen=True)
class _Job:
    """One call of `generate_video`; `began` is on the monotonic clock."""

    model: LoadedModel
    request: ResolvedRequest
    on_progress: ProgressCallback
    should_stop: StopCallback
    began: float

    def render(self, first_frame: Image.Image | None, lora_dir: Path | None) -> _Rendered:
        """The video, and its dense twin if that is asked for, both with the request's LoRAs."""
        model, request, seconds, quality = self.model, self.request, {}, None
        if request.loras:
            self.on_progress(Progress(stage="load", total_steps=request.num_inference_steps))
        with loras_on(model.pipe, request.loras, lora_dir):
            if request.loras:
                seconds["load"] = time.monotonic() - self.began
            report = self._report_render(0)
            video = generate_frames(model, request, report, self.should_stop, first_frame=first_frame)
            if request.quality_check:
                check_began = time.monotonic()
                report = self._report_render(1)
                quality = check_quality(model, request, video, report, self.should_stop, first_frame)
                seconds["quality_check"] = time.monotonic() - check_began
        return _Rendered(video, seconds, quality)

    def _report_render(self, index: int) -> ProgressCallback:
        """Each of a quality check's two renders is half of the job."""
        if not self.request.quality_check:
            return self.on_progress

        def report(progress: Progress) -> None:
            fraction = (index + progress.fraction) / 2
            spent = time.monotonic() - self.began
            eta_s = None if progress.eta_s is None else spent * (1 - fraction) / fraction
            self.on_progress(progress.model_copy(update={"fraction": fraction, "eta_s": eta_s}))

        return report


def _output_metrics(path: Path, frames: np.ndarray, fps: int) -> OutputMetrics:
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
