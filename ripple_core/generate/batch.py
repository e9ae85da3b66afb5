"""Several requests to files in one call of the pipeline."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ripple_core.contract.batch import can_share
from ripple_core.contract.errors import GenerationCancelled, GenerationFailed, OutOfMemory, RippleError
from ripple_core.contract.job import Progress
from ripple_core.contract.metrics import JobMetrics
from ripple_core.contract.request import ResolvedRequest
from ripple_core.generate.denoising_preview import PreviewCallback
from ripple_core.generate.load import LoadedModel
from ripple_core.generate.memory import out_of_memory_named
from ripple_core.generate.run import GeneratedFrames, InvalidFrames, generate_batch
from ripple_core.generate.video import Rendered, VideoRun, generate_video
from ripple_core.generate.watch import FramesJob, ProgressCallback, StopCallback

logger = logging.getLogger(__name__)

VideoResult = JobMetrics | RippleError


def _ignore(_: Progress | VideoResult) -> None:
    """Nobody follows."""


def _never() -> bool:
    return False


@dataclass(frozen=True)
class VideoJob:
    """One video of several.

    Attributes:
        request: fully resolved.
        folder: where its files are written.
        on_progress: called at every change of stage and after every denoising step.
        should_stop: asked as by `generate_video`, until it says so once.
        image: what the video begins from, for requests that brought one.
        on_end: told what became of it, as soon as that is known.
        on_preview: as of `generate_video`.
    """

    request: ResolvedRequest
    folder: Path
    on_progress: ProgressCallback = _ignore
    should_stop: StopCallback = _never
    image: Path | None = None
    on_end: Callable[[VideoResult], None] = _ignore
    on_preview: PreviewCallback | None = None


def generate_videos(
    model: LoadedModel,
    jobs: Sequence[VideoJob],
    lora_dir: Path | None = None,
    retry_dense: bool = True,
    retry_tiling: bool = True,
) -> list[VideoResult]:
    """Generate videos together, each as `generate_video` does: with its own files, progress, stop and savings.

    What goes wrong with one is its own result, and changes nothing for the others. Where they do not fit into memory
    together, or the model runs on several devices, they are made one after the other; then progress begins again.

    Args:
        model: from `load_model`.
        jobs: each pair of whose requests `can_share`; one may be any.
        lora_dir: as of `generate_video`.
        retry_dense: as of `generate_video`; a second try is made alone.
        retry_tiling: as of `generate_video`.

    Returns:
        Metrics or error of each job. Stages that ran together have the same seconds in all of them.

    Raises:
        ValueError: when the requests cannot share a call.
    """
    if not all(can_share(jobs[0].request, job.request) for job in jobs[1:]):
        raise ValueError("these requests cannot be made together; see can_share")
    followed = [_Followed(job) for job in jobs]
    if len(jobs) > 1 and model.ranks is None:
        try:
            _generate_together(model, followed, retry_dense, retry_tiling)
        except OutOfMemory as error:
            logger.warning("%d videos do not fit together, so they follow one another: %s", len(jobs), error)
    for one in followed:
        if one.result is None:
            one.end_with(partial(one.generate_alone, model, lora_dir, retry_dense, retry_tiling))
    return [one.result for one in followed if one.result is not None]


@dataclass
class _Followed:
    """A job and what became of it."""

    job: VideoJob
    result: VideoResult | None = None

    def should_stop(self) -> bool:
        """Asks no more once the answer was yes: it may come but once."""
        if self.result is None and self.job.should_stop():
            self._end(GenerationCancelled("The job was cancelled."))
        return isinstance(self.result, GenerationCancelled)

    def end_with(self, make: Callable[[], JobMetrics]) -> None:
        """Its result is what this returns or fails of."""
        try:
            self._end(make())
        except RippleError as error:
            self._end(error)
        except OSError as error:
            self._end(GenerationFailed(f"A file of the video cannot be read or written: {error}"))

    def _end(self, result: VideoResult) -> None:
        # A stop that was asked for has told so already.
        if self.result is None:
            self.result = result
            self.job.on_end(result)

    def generate_alone(
        self, model: LoadedModel, lora_dir: Path | None, retry_dense: bool, retry_tiling: bool
    ) -> JobMetrics:
        """As if there were no others."""
        job = self.job
        return generate_video(
            model,
            job.request,
            job.folder,
            job.on_progress,
            self.should_stop,
            job.image,
            lora_dir,
            retry_dense,
            retry_tiling,
            job.on_preview,
        )


def _generate_together(
    model: LoadedModel, followed: Sequence[_Followed], retry_dense: bool, retry_tiling: bool
) -> None:
    """Give every job its result.

    Raises:
        OutOfMemory: when they do not fit; those without a result have not ended.
    """
    began = time.monotonic()
    jobs = [FramesJob(one.job.request, one.job.on_progress, one.should_stop, one.job.on_preview) for one in followed]
    for one, generated in zip(followed, generate_batch(model, jobs, retry_tiling), strict=True):
        job = one.job
        run = VideoRun(model, job.request, job.folder, job.on_progress, one.should_stop, job.on_preview, began)
        one.end_with(partial(_finish, run, generated, len(jobs), retry_dense, retry_tiling))


def _finish(
    run: VideoRun, generated: GeneratedFrames | RippleError, batch_size: int, retry_dense: bool, retry_tiling: bool
) -> JobMetrics:
    """One job of a batch from its frames on; a second try without reuse is its own."""
    with out_of_memory_named(run.model, run.request):
        if isinstance(generated, GeneratedFrames):
            return run.write(Rendered(generated), batch_size)
        if not (isinstance(generated, InvalidFrames) and generated.reused and retry_dense):
            raise generated
        logger.warning("once more alone and without reuse: %s", generated)
        return run.write(Rendered(run.video_without_reuse(None, retry_tiling)))
