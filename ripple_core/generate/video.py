"""One request to a video file with its pictures, and everything measured on the way."""

import logging
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from PIL import Image

from ripple_core.contract.errors import GenerationCancelled, GenerationFailed
from ripple_core.contract.job import Progress
from ripple_core.contract.metrics import DeviceMetrics, JobMetrics, QualityMetrics, Retry
from ripple_core.contract.request import ResolvedRequest
from ripple_core.contract.videos import SPRITESHEET, THUMBNAIL, video_file
from ripple_core.generate.denoising_preview import PreviewCallback
from ripple_core.generate.encode import write_video
from ripple_core.generate.first_frame import read_first_frame
from ripple_core.generate.job_metrics import attention_metrics, output_metrics
from ripple_core.generate.load import LoadedModel
from ripple_core.generate.memory import out_of_memory_named
from ripple_core.generate.previews import write_spritesheet, write_thumbnail
from ripple_core.generate.quality import check_quality, without_reuse
from ripple_core.generate.run import GeneratedFrames, InvalidFrames, generate_frames
from ripple_core.generate.watch import ProgressCallback, StopCallback

logger = logging.getLogger(__name__)

_FRACTION_DECODED = 0.98


def generate_video(
    model: LoadedModel,
    request: ResolvedRequest,
    folder: Path,
    on_progress: ProgressCallback = lambda _: None,
    should_stop: StopCallback = lambda: False,
    image: Path | None = None,
    lora_dir: Path | None = None,
    retry_dense: bool = True,
    retry_tiling: bool = True,
    on_preview: PreviewCallback | None = None,
) -> JobMetrics:
    """Generate one video with its thumbnail and sprite sheet.

    The files come last, and whatever goes wrong leaves the folder without them. The metrics' `attention`, `device` and
    the stages of `latency_s` are those of the video itself: the dense twin is in `quality` and in the stage
    `quality_check` alone, and a first try that came to nothing only in `retries` and in the total seconds. So a video
    whose second try ran dense has saved nothing.

    Args:
        model: from `load_model`.
        request: fully resolved.
        folder: where `video_file(...)`, THUMBNAIL and SPRITESHEET are written.
        on_progress: called at every change of stage and after every denoising step; a second try begins from 0 again.
        should_stop: asked after every denoising step, and several times a second while files are written.
        image: what the video begins from, for requests that brought one.
        lora_dir: holds the files of the LoRAs that requests name.
        retry_dense: whether to try again without reuse when reuse gave no valid frames.
        retry_tiling: whether to try again in tiles when there is no memory to decode whole frames.
        on_preview: as of `generate_frames`, of the video itself and not of its dense twin.

    Raises:
        GenerationCancelled: when should_stop said so.
        GenerationFailed: when the image is gone, or a LoRA cannot be used.
        InvalidOutput: when the frames are no numbers, or all black.
        OutOfMemory: with what would fit.
        StorageFull: when there is no room for the files.
        OSError: when the image cannot be read, or a file cannot be written.
    """
    job = VideoRun(model, request, folder, on_progress, should_stop, on_preview)
    with out_of_memory_named(model, request):
        first_frame = _first_frame(request, image)
        return job.write(job.render(first_frame, lora_dir, retry_dense, retry_tiling))


def _first_frame(request: ResolvedRequest, image: Path | None) -> Image.Image | None:
    if request.image_sha256 is not None and image is None:
        raise GenerationFailed("The image that the video begins from is gone; send the request again.")
    return read_first_frame(image, request.width, request.height) if image else None


@dataclass(frozen=True)
class Rendered:
    """A video's frames, seconds of the stages besides its own, and how far it is from its dense twin."""

    video: GeneratedFrames
    seconds: dict[str, float] = field(default_factory=dict)
    quality: QualityMetrics | None = None


@dataclass(frozen=True)
class VideoRun:
    """One request on its way to files; `began` is on the monotonic clock."""

    model: LoadedModel
    request: ResolvedRequest
    folder: Path
    on_progress: ProgressCallback
    should_stop: StopCallback
    on_preview: PreviewCallback | None = None
    began: float = field(default_factory=time.monotonic)

    def render(
        self, first_frame: Image.Image | None, lora_dir: Path | None, retry_dense: bool, retry_tiling: bool
    ) -> Rendered:
        """The video, and its dense twin if that is asked for, both with the request's LoRAs."""
        model, request, seconds, quality = self.model, self.request, dict[str, float](), None
        if request.loras:
            self.on_progress(Progress(stage="load", total_steps=request.num_inference_steps))
        with model.with_loras(request.loras, lora_dir):
            if request.loras:
                seconds["load"] = time.monotonic() - self.began
            video = self._video(first_frame, retry_dense, retry_tiling)
            if request.quality_check:
                check_began = time.monotonic()
                report = self._report_render(1)
                quality = check_quality(model, request, video, report, self.should_stop, first_frame, retry_tiling)
                seconds["quality_check"] = time.monotonic() - check_began
        return Rendered(video, seconds, quality)

    def _video(self, first_frame: Image.Image | None, retry_dense: bool, retry_tiling: bool) -> GeneratedFrames:
        try:
            return self._frames(self.request, first_frame, retry_tiling)
        except InvalidFrames as error:
            if not (retry_dense and error.reused):
                raise
            logger.warning("once more without reuse: %s", error)
        return self.video_without_reuse(first_frame, retry_tiling)

    def video_without_reuse(self, first_frame: Image.Image | None, retry_tiling: bool) -> GeneratedFrames:
        """The second try after frames that were no video."""
        video = self._frames(without_reuse(self.request), first_frame, retry_tiling)
        retry = Retry(reason="invalid_output", remedy="dense_attention")
        return replace(video, retries=(retry, *video.retries))

    def _frames(self, request: ResolvedRequest, first_frame: Image.Image | None, retry_tiling: bool) -> GeneratedFrames:
        report = self._report_render(0)
        return generate_frames(
            self.model,
            request,
            report,
            self.should_stop,
            first_frame=first_frame,
            retry_tiling=retry_tiling,
            on_preview=self.on_preview,
        )

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

    def write(self, rendered: Rendered, batch_size: int = 1) -> JobMetrics:
        """The files, and all that was measured."""
        video, quality, steps = rendered.video, rendered.quality, self.request.num_inference_steps
        self.on_progress(Progress(stage="mp4_encode", step=steps, total_steps=steps, fraction=_FRACTION_DECODED))
        encode_began = time.monotonic()
        path = self._write_files(video.frames)
        ended = time.monotonic()
        stages = rendered.seconds | {"mp4_encode": ended - encode_began, "total": ended - self.began}
        return JobMetrics(
            latency_s=video.latency.model_copy(update=stages),
            attention=attention_metrics(video.report, calibrated=self.model.profile is not None),
            device=DeviceMetrics(
                name=self.model.device_name,
                dtype=str(self.model.dtype).removeprefix("torch."),
                peak_memory_bytes=video.peak_memory_bytes,
            ),
            output=output_metrics(path, video.frames, self.request.fps),
            denoising_step_s=list(video.step_seconds),
            # The twin's own time is better than an estimate, but no more alike.
            dense_denoise_estimate_s=(
                quality.dense_denoise_s if quality and video.steps_are_alike else video.dense_denoise_estimate_s
            ),
            quality=quality,
            batch_size=batch_size,
            retries=list(video.retries),
        )

    def _write_files(self, frames: np.ndarray) -> Path:
        """The video's path; nothing is left behind by a failure, least of all on a full disk."""
        path, thumbnail, sheet = (
            self.folder / name for name in (video_file(self.request.output.format), THUMBNAIL, SPRITESHEET)
        )
        try:
            self._stop_if_asked()
            write_video(frames, path, self.request.fps, self.request.output, self._stop_if_asked)
            self._stop_if_asked()
            write_thumbnail(frames, thumbnail)
            write_spritesheet(frames, sheet, self._stop_if_asked)
        except BaseException:
            for file in (path, thumbnail, sheet):
                file.unlink(missing_ok=True)
            raise
        return path

    def _stop_if_asked(self) -> None:
        if self.should_stop():
            raise GenerationCancelled("The job was cancelled.")
