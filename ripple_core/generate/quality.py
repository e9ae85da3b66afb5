"""The quality check: the dense twin of a video, and how far the video is from it."""

from PIL import Image

from ripple_core.contract.errors import GenerationCancelled
from ripple_core.contract.job import Progress
from ripple_core.contract.metrics import QualityMetrics
from ripple_core.contract.request import ResolvedRequest
from ripple_core.generate.difference import compare_frames
from ripple_core.generate.load import LoadedModel
from ripple_core.generate.run import GeneratedFrames, generate_frames
from ripple_core.generate.watch import ProgressCallback, StopCallback


def check_quality(
    model: LoadedModel,
    request: ResolvedRequest,
    video: GeneratedFrames,
    on_progress: ProgressCallback,
    should_stop: StopCallback,
    first_frame: Image.Image | None,
    retry_tiling: bool,
) -> QualityMetrics:
    """Render the same request dense, on the pipeline as it is, and compare.

    Args:
        model: with the LoRAs of the video on its pipeline.
        request: of the video.
        video: as generated with reuse.
        on_progress: called as by `generate_frames`, in stage "quality_check".
        should_stop: asked after every denoising step and between the frames compared.
        first_frame: as of the video.
        retry_tiling: as of the video.

    Raises:
        GenerationCancelled: when should_stop said so.
        InvalidOutput: when the twin's frames are no video.
        OutOfMemory: with what would fit.
    """
    # Every call went to the stock kernel: the twin would be the same, bit for bit.
    if set(video.report.dense_steps) == set(video.report.by_step):
        return QualityMetrics(
            identical=True, psnr_db=None, worst_frame_psnr_db=None, ssim=1.0, dense_denoise_s=video.latency.denoise
        )

    def report(progress: Progress) -> None:
        on_progress(progress.model_copy(update={"stage": "quality_check"}))

    def stop_if_asked() -> None:
        if should_stop():
            raise GenerationCancelled("The job was cancelled.")

    twin = generate_frames(
        model, without_reuse(request), report, should_stop, first_frame=first_frame, retry_tiling=retry_tiling
    )
    difference = compare_frames(twin.frames, video.frames, before_frame=stop_if_asked)
    return QualityMetrics(
        identical=difference.psnr_db is None,
        psnr_db=difference.psnr_db,
        worst_frame_psnr_db=difference.worst_frame_psnr_db,
        ssim=difference.ssim,
        dense_denoise_s=twin.latency.denoise,
    )


def without_reuse(request: ResolvedRequest) -> ResolvedRequest:
    """The same with dense attention."""
    return request.model_copy(update={"reuse": request.reuse.model_copy(update={"mode": "dense"})})
