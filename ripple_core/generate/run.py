"""Runs a loaded pipeline on one request or on several at once: prompts to frames."""

import logging
import statistics
import tempfile
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from weakref import WeakSet

import numpy as np
import torch
from PIL import Image
from torch import nn

from ripple_core.attention import SavingsReport, TimeRippleConfig
from ripple_core.contract.errors import GenerationCancelled, InvalidOutput, RippleError
from ripple_core.contract.metrics import LatencySeconds, Retry
from ripple_core.contract.request import ResolvedRequest
from ripple_core.generate.check import problem_with_frames
from ripple_core.generate.denoising_preview import DenoisingPreviews, PreviewCallback
from ripple_core.generate.encode import write_video
from ripple_core.generate.load import LoadedModel
from ripple_core.generate.memory import out_of_memory_named, peak_memory_bytes, remember, start_measuring
from ripple_core.generate.tiling import tiles_where_memory_is_short
from ripple_core.generate.watch import FramesJob, NothingLeftError, ProgressCallback, StopCallback, Watch
from ripple_core.integrate import apply_timeripple, transformers_of

logger = logging.getLogger(__name__)

# Pipelines that have made a video since they were loaded.
_WARM: WeakSet[Any] = WeakSet()

# What WanPipeline pads prompts to by default; encoding ourselves must not change it.
MAX_SEQUENCE_LENGTH = 512


class AppliedAttention(Protocol):
    """What sits on a transformer for one video, such as a TimeRippleHandle."""

    def report(self) -> SavingsReport:
        """What ran."""

    def remove(self) -> None:
        """Put the stock transformer back."""


@dataclass(frozen=True)
class GeneratedFrames:
    """A video before it is a file; a notebook plays it.

    Attributes:
        frames: uint8 ``[num_frames, height, width, 3]``.
        request: that it was made for.
        latency: of the stages that ran here.
        step_seconds: of each denoising step; empty where a batch shrank on the way, whose steps are not alike.
        steps_are_alike: apart from reuse; not after a batch shrank, nor with a step cache, nor in a pipeline's first
            video, whose first steps take longer.
        report: what reuse saved.
        peak_memory_bytes: while it ran.
        retries: within these stages.
    """

    frames: np.ndarray
    request: ResolvedRequest
    latency: LatencySeconds
    step_seconds: tuple[float, ...]
    steps_are_alike: bool
    report: SavingsReport
    peak_memory_bytes: int
    retries: tuple[Retry, ...] = ()

    @property
    def dense_denoise_estimate_s(self) -> float | None:
        """What denoising would have taken without reuse: all steps as long as the dense ones among them.

        The lower median of these, without the first step of all: it prepares the loop, and may compile. None where no
        other step was dense, or they are not alike.
        """
        steps = self.step_seconds
        dense = [steps[step] for step in self.report.dense_steps if 0 < step < len(steps)]
        return statistics.median_low(dense) * len(steps) if dense and self.steps_are_alike else None

    def _repr_html_(self) -> str:
        from ripple_core import notebook

        request, latency = self.request, self.latency
        num_frames, height, width, _ = self.frames.shape
        to_file = (
            'Write it to a file with ripple_core.generate.write_video(video.frames, Path("video.mp4"), '
            'video.request.fps), and show that with IPython.display.Video("video.mp4").'
        )
        rows = {
            "prompt": request.prompt,
            "model": request.model,
            "seed": str(request.seed),
            "video": f"{width}x{height}, {num_frames} frames, {request.fps} per second",
            "reading the prompt": notebook.seconds(latency.text_encode),
            "denoising": f"{notebook.seconds(latency.denoise)} ({request.num_inference_steps} steps)",
            "decoding frames": notebook.seconds(latency.vae_decode),
            "peak memory": notebook.gigabytes(self.peak_memory_bytes),
        }
        outcome = notebook.outcome(self.report.savings, latency.denoise, self.dense_denoise_estimate_s)
        return notebook.page(
            notebook.video(self._mp4(), width, height, to_file),
            notebook.paragraph(outcome),
            notebook.table(rows),
            notebook.details("What was saved, step by step and layer by layer", self.report._repr_html_()),
        )

    def _mp4(self) -> bytes:
        with tempfile.TemporaryDirectory(prefix="timeripple-") as folder:
            path = Path(folder, "video.mp4")
            write_video(self.frames, path, self.request.fps)
            return path.read_bytes()


class InvalidFrames(InvalidOutput):
    """What a run came out with is no video; `reused` tells whether any of its attention was reused."""

    def __init__(self, problem: str, report: SavingsReport) -> None:
        self.reused = set(report.dense_steps) != set(report.by_step)
        remedy = "Ask for less reuse" if self.reused else "The model may be broken; try its defaults"
        super().__init__(f"{problem}: this is no video. {remedy}, or another seed.")


def generate_frames(
    model: LoadedModel,
    request: ResolvedRequest,
    on_progress: ProgressCallback = lambda _: None,
    should_stop: StopCallback = lambda: False,
    apply: Callable[[nn.Module], AppliedAttention] | None = None,
    first_frame: Image.Image | None = None,
    retry_tiling: bool = False,
    on_preview: PreviewCallback | None = None,
) -> GeneratedFrames:
    """Run the pipeline with TimeRipple on it, and take TimeRipple off again.

    At aggressiveness 0 the frames are those of the stock pipeline, bit for bit. The noise is drawn on the CPU, so a
    seed means the same on every device. Whatever goes wrong, the pipeline is left as it was found.

    Args:
        model: from `load_model`, with the request's LoRAs on its pipeline.
        request: fully resolved.
        on_progress: called at every change of stage and after every denoising step.
        should_stop: asked after every denoising step.
        apply: puts something else on the (first) transformer than what the request's reuse settings say.
        first_frame: for image-to-video pipelines, of the video's size.
        retry_tiling: whether the VAE may decode in tiles what it has no memory to decode whole.
        on_preview: given the steps finished and a small animated WebP every few steps, if the request asks for that.

    Raises:
        GenerationCancelled: when should_stop said so.
        InvalidFrames: when latents or frames are no numbers, or all frames black.
        OutOfMemory: with what would fit.
    """
    handle = apply(model.pipe.transformer) if apply else model.apply(_config(model, request))
    jobs = [FramesJob(request, on_progress, should_stop, on_preview)]
    watch = Watch(model.pipe, jobs, model.device, _previews(model, jobs, first_frame))
    [ended] = _generate(model, watch, handle, lambda _: handle.report(), first_frame, retry_tiling)
    if isinstance(ended, RippleError):
        raise ended
    return ended


def generate_batch(
    model: LoadedModel, jobs: Sequence[FramesJob], retry_tiling: bool = False
) -> list[GeneratedFrames | RippleError]:
    """Several videos in one call of the pipeline, as `generate_frames` makes one.

    A job that shall stop, or whose latents are no numbers, is taken out of the batch, and the others go on; their
    frames do not depend on it. Each one's report counts what ran for it; latency and peak memory are the batch's. The
    VAE decodes one video at a time.

    Args:
        model: on one device.
        jobs: at least one, each pair of whose requests `can_share`.
        retry_tiling: as of `generate_frames`.

    Returns:
        For each job its frames, or GenerationCancelled or InvalidFrames.

    Raises:
        OutOfMemory: when they do not fit together.
    """
    handle = apply_timeripple(model.pipe, _config(model, jobs[0].request))
    watch = Watch(model.pipe, jobs, model.device, _previews(model, jobs), handle.keep_places)
    vae = model.pipe.vae
    sliced_before, vae.use_slicing = vae.use_slicing, True
    try:
        return _generate(model, watch, handle, handle.report, retry_tiling=retry_tiling)
    finally:
        vae.use_slicing = sliced_before


def _previews(
    model: LoadedModel, jobs: Sequence[FramesJob], first_frame: Image.Image | None = None
) -> DenoisingPreviews:
    viewers = {number: job.viewer for number, job in enumerate(jobs) if job.viewer}
    return DenoisingPreviews(model, jobs[0].request, viewers, first_frame)


def _config(model: LoadedModel, request: ResolvedRequest) -> TimeRippleConfig:
    return TimeRippleConfig(request.reuse.aggressiveness, request.reuse.mode, profile=model.profile)


def _generate(
    model: LoadedModel,
    watch: Watch,
    handle: AppliedAttention,
    report_of: Callable[[int], SavingsReport],
    first_frame: Image.Image | None = None,
    retry_tiling: bool = False,
) -> list[GeneratedFrames | RippleError]:
    """What became of each job of the watch; report_of gives that of one."""
    retries: list[Retry] = []
    tiled = Retry(reason="out_of_memory", remedy="vae_tiling")
    in_use = start_measuring(model.device)
    is_first = model.pipe not in _WARM
    frames: dict[int, np.ndarray] = {}
    try:
        with (
            out_of_memory_named(model, watch.jobs[0].request),
            tiles_where_memory_is_short(model, lambda: retries.append(tiled)) if retry_tiling else nullcontext(),
        ):
            frames = _run_pipeline(model, watch, first_frame)
    except NothingLeftError:
        logger.debug("nobody wants a video of this run any more")
    finally:
        handle.remove()
        # An exception inside a step leaves diffusers' step caches with half a state, which would spoil the next job.
        for transformer in transformers_of(model.pipe):
            transformer._reset_stateful_cache()
        model.pipe.maybe_free_model_hooks()
    if frames:
        _WARM.add(model.pipe)
    has_like_steps = not (is_first or watch.shrank or model.pipe.transformer.is_cache_enabled)
    peak = peak_memory_bytes(model.device)
    if len(watch.jobs) == 1 and frames and not retries:
        remember(model, watch.jobs[0].request, peak - in_use)

    def ended(number: int) -> GeneratedFrames | RippleError:
        if number in watch.stopped:
            return GenerationCancelled("The job was cancelled.")
        if number in watch.problems:
            return InvalidFrames(watch.problems[number], report_of(number))
        steps = () if watch.shrank else tuple(watch.clock.seconds())
        return GeneratedFrames(
            frames=frames[number],
            request=watch.jobs[number].request,
            latency=watch.latency,
            step_seconds=steps,
            steps_are_alike=has_like_steps,
            report=report_of(number),
            peak_memory_bytes=peak,
            retries=tuple(retries),
        )

    return [ended(number) for number in range(len(watch.jobs))]


# The pipeline does so itself, and kernels that record gradients round differently.
@torch.no_grad()
def _run_pipeline(model: LoadedModel, watch: Watch, first_frame: Image.Image | None) -> dict[int, np.ndarray]:
    """Frames by job, of the jobs that came to something."""
    pipe, request = model.pipe, watch.jobs[0].request
    watch.begin()
    embeddings, negative = pipe.encode_prompt(
        prompt=[job.request.prompt for job in watch.jobs],
        negative_prompt=[job.request.negative_prompt for job in watch.jobs],
        do_classifier_free_guidance=request.is_guided,
        max_sequence_length=MAX_SEQUENCE_LENGTH,
        device=model.device,
    )
    watch.text_encoded()
    items = watch.items
    image = {} if first_frame is None else {"image": first_frame}
    videos = pipe(
        **image,
        prompt_embeds=embeddings[items],
        negative_prompt_embeds=None if negative is None else negative[items],
        width=request.width,
        height=request.height,
        num_frames=request.num_frames,
        num_inference_steps=request.num_inference_steps,
        guidance_scale=request.guidance_scale,
        generator=[torch.Generator("cpu").manual_seed(watch.jobs[number].request.seed) for number in items],
        callback_on_step_end=watch.after_step,
        callback_on_step_end_tensor_inputs=["latents", "prompt_embeds", "negative_prompt_embeds"],
        output_type="np",
    ).frames
    watch.decoded()
    frames = {}
    for number, video in zip(watch.items, videos, strict=True):
        if problem := problem_with_frames(video):
            watch.problems[number] = problem
        else:
            frames[number] = (video * 255).round().astype(np.uint8)
    return frames
