"""Runs a loaded pipeline on one request: prompt to frames."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import nn

from ripple_core.attention import SavingsReport, TimeRippleConfig
from ripple_core.contract.errors import GenerationCancelled, OutOfMemory
from ripple_core.contract.job import Progress
from ripple_core.contract.metrics import LatencySeconds
from ripple_core.contract.request import ResolvedRequest
from ripple_core.generate.load import LoadedModel
from ripple_core.integrate import apply_timeripple, transformers_of

# What WanPipeline pads prompts to by default; encoding ourselves must not change it.
MAX_SEQUENCE_LENGTH = 512
# Share of the job's time before and after the denoising loop, for the progress bar only.
_BEFORE_DENOISE, _AFTER_DENOISE = 0.02, 0.05


class AppliedAttention(Protocol):
    """What sits on a transformer for one video, such as a TimeRippleHandle."""

    def report(self) -> SavingsReport:
        """What ran."""

    def remove(self) -> None:
        """Put the stock transformer back."""


ProgressCallback = Callable[[Progress], None]
StopCallback = Callable[[], bool]


@dataclass(frozen=True)
class GeneratedFrames:
    """frames: uint8 ``[num_frames, height, width, 3]``; latency: the stages that ran here."""

    frames: np.ndarray
    latency: LatencySeconds
    report: SavingsReport
    peak_memory_bytes: int


def generate_frames(
    model: LoadedModel,
    request: ResolvedRequest,
    on_progress: ProgressCallback = lambda _: None,
    should_stop: StopCallback = lambda: False,
    apply: Callable[[nn.Module], AppliedAttention] | None = None,
    first_frame: Image.Image | None = None,
) -> GeneratedFrames:
    """Run the pipeline with TimeRipple on it, and take TimeRipple off again.

    At aggressiveness 0 the frames are those of the stock pipeline, bit for bit. The noise is drawn on the CPU, so a
    seed means the same on every device.

    Args:
        model: from `load_model`, with the request's LoRAs on its pipeline.
        request: fully resolved.
        on_progress: called at every change of stage and after every denoising step.
        should_stop: asked after every denoising step.
        apply: puts something else on the (first) transformer than what the request's reuse settings say.
        first_frame: for image-to-video pipelines, of the video's size.

    Raises:
        GenerationCancelled: when should_stop said so.
        OutOfMemory: with what to lower.
    """
    reuse = TimeRippleConfig(request.reuse.aggressiveness, request.reuse.mode, profile=model.profile)
    handle = apply(model.pipe.transformer) if apply else apply_timeripple(model.pipe, reuse)
    if model.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(model.device)
    try:
        frames, latency = _run_pipeline(_Watch(model, request, on_progress, should_stop), first_frame)
    except torch.OutOfMemoryError as error:
        size = f"{request.width}x{request.height}, {request.num_frames} frames"
        raise OutOfMemory(f"Out of memory at {size}; ask for a smaller size or fewer frames.") from error
    finally:
        handle.remove()
        # An exception inside a step leaves diffusers' step caches with half a state, which would spoil the next job.
        for transformer in transformers_of(model.pipe):
            transformer._reset_stateful_cache()
        model.pipe.maybe_free_model_hooks()
    return GeneratedFrames(frames, latency, handle.report(), _peak_memory_bytes(model.device))


@dataclass
class _Watch:
    """Follows one run: times it, reports it and stops it."""

    model: LoadedModel
    request: ResolvedRequest
    on_progress: ProgressCallback
    should_stop: StopCallback
    denoise_began: float = 0.0
    denoise_ended: float = 0.0

    def stage(self, name: Any, fraction: float, step: int = 0, eta_s: float | None = None) -> None:
        """Report a stage, and stop here if asked to."""
        total = self.request.num_inference_steps
        self.on_progress(Progress(stage=name, step=step, total_steps=total, fraction=fraction, eta_s=eta_s))
        if self.should_stop():
            raise GenerationCancelled("The job was cancelled.")

    def after_step(self, _pipe: Any, index: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        """diffusers' callback_on_step_end. Raising is the one way out that skips the VAE too."""
        total, step = self.request.num_inference_steps, index + 1
        if step == total and self.model.device.type == "cuda":
            torch.cuda.synchronize(self.model.device)
        now = time.monotonic()
        share = step / total
        eta_s = (now - self.denoise_began) * (1 - share) / share
        fraction = _BEFORE_DENOISE + (1 - _BEFORE_DENOISE - _AFTER_DENOISE) * share
        self.stage("denoise", fraction, step, eta_s)
        if step == total:
            self.denoise_ended = time.monotonic()
            self.stage("vae_decode", fraction, step)
        return tensors


# The pipeline does so itself, and kernels that record gradients round differently.
@torch.no_grad()
def _run_pipeline(watch: _Watch, first_frame: Image.Image | None) -> tuple[np.ndarray, LatencySeconds]:
    pipe, request, device = watch.model.pipe, watch.request, watch.model.device
    watch.stage("text_encode", 0.0)
    began = time.monotonic()
    embeddings, negative = pipe.encode_prompt(
        prompt=request.prompt,
        negative_prompt=request.negative_prompt or None,
        do_classifier_free_guidance=request.is_guided,
        max_sequence_length=MAX_SEQUENCE_LENGTH,
        device=device,
    )
    watch.denoise_began = time.monotonic()
    watch.stage("denoise", _BEFORE_DENOISE)
    image = {} if first_frame is None else {"image": first_frame}
    frames = pipe(
        **image,
        prompt_embeds=embeddings,
        negative_prompt_embeds=negative,
        width=request.width,
        height=request.height,
        num_frames=request.num_frames,
        num_inference_steps=request.num_inference_steps,
        guidance_scale=request.guidance_scale,
        generator=torch.Generator("cpu").manual_seed(request.seed),
        callback_on_step_end=watch.after_step,
        output_type="np",
    ).frames[0]
    latency = LatencySeconds(
        text_encode=watch.denoise_began - began,
        denoise=watch.denoise_ended - watch.denoise_began,
        vae_decode=time.monotonic() - watch.denoise_ended,
    )
    return (frames * 255).round().astype(np.uint8), latency


def _peak_memory_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    import resource  # absent on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
