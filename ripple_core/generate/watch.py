"""Follows a run of the pipeline: times it, reports it, and takes videos out of it."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ripple_core.contract.job import Progress, Stage
from ripple_core.contract.metrics import LatencySeconds
from ripple_core.contract.request import ResolvedRequest
from ripple_core.generate.check import problem_with_latents
from ripple_core.generate.denoising_preview import DenoisingPreviews, PreviewCallback, Viewer
from ripple_core.generate.step_clock import StepClock

# Share of the job's time before and after the denoising loop, for the progress bar only.
_BEFORE_DENOISE, _AFTER_DENOISE = 0.02, 0.05

ProgressCallback = Callable[[Progress], None]
StopCallback = Callable[[], bool]


@dataclass(frozen=True)
class FramesJob:
    """One video of a run.

    Attributes:
        request: fully resolved.
        on_progress: called at every change of stage and after every denoising step.
        should_stop: asked after each of these calls, until it says so.
        on_preview: given previews of a request that asks for them; nobody watches by default.
    """

    request: ResolvedRequest
    on_progress: ProgressCallback
    should_stop: StopCallback
    on_preview: PreviewCallback | None = None

    @property
    def viewer(self) -> Viewer | None:
        """Who wants previews of it, if anybody does."""
        return Viewer(self.request.fps, self.on_preview) if self.request.preview and self.on_preview else None


class NothingLeftError(Exception):
    """Raised in a pipeline's callback when no video of the run is wanted any more; skips the rest, the VAE included."""


@dataclass
class Watch:
    """Follows one run; jobs are known by their place in it.

    Attributes:
        pipe: the pipeline that runs.
        jobs: their requests agree in all that the pipeline is told once.
        on_drop: told which places in the batch go on, each time some do not.
        items: the jobs that the batch still holds, in its order.
        stopped: jobs whose should_stop said so.
        problems: what is wrong with a job's latents or frames.
        device: that the steps run on.
        previews: of the run.
        latency: of the stages that are over.
        shrank: whether jobs were dropped between denoising steps.
        clock: of the denoising steps.
    """

    pipe: Any
    jobs: Sequence[FramesJob]
    device: torch.device
    previews: DenoisingPreviews
    on_drop: Callable[[list[int]], None] = lambda _: None
    items: list[int] = field(init=False)
    stopped: set[int] = field(default_factory=set)
    problems: dict[int, str] = field(default_factory=dict)
    latency: LatencySeconds = field(default_factory=LatencySeconds)
    clock: StepClock = field(init=False)
    shrank: bool = False
    _stage_began: float = 0.0

    def __post_init__(self) -> None:
        self.items = list(range(len(self.jobs)))
        self.clock = StepClock(self.device)

    def begin(self) -> None:
        """The text comes first."""
        self._stage_began = time.monotonic()
        self._report("text_encode", 0.0)
        self._leave_if_nothing_is_left()

    def text_encoded(self) -> None:
        """The denoising loop comes next, of the jobs in `items` alone."""
        self._end_stage("text_encode")
        self._report("denoise", _BEFORE_DENOISE)
        self._leave_if_nothing_is_left()
        if len(self.items) < len(self.jobs):
            self.on_drop(self.items)
        self.clock.mark()

    def after_step(self, _pipe: Any, index: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        """diffusers' callback_on_step_end, given latents and prompt embeddings of the batch."""
        self.clock.mark()
        total, step, latents = self.jobs[0].request.num_inference_steps, index + 1, tensors["latents"]
        if step == total and latents.is_cuda:
            torch.cuda.synchronize(latents.device)
        spent, share = time.monotonic() - self._stage_began + self.latency.preview, step / total
        fraction = _BEFORE_DENOISE + (1 - _BEFORE_DENOISE - _AFTER_DENOISE) * share
        batch = list(self.items)
        self._report("denoise", fraction, step, spent * (1 - share) / share)
        if step == total:
            self._end_stage("denoise")
            # NaN and infinity stay to the end, so the end is early enough to look.
            self._drop_invalid(batch, latents)
            self._report("vae_decode", fraction, step)
        else:
            self._preview(step, batch, latents)
        return self._without_dropped(batch, tensors)

    def decoded(self) -> None:
        """The frames are there."""
        self._end_stage("vae_decode")

    def _preview(self, step: int, batch: list[int], latents: Tensor) -> None:
        """Previews stand between the steps and are a stage of their own."""
        going_on = {number: item for number, item in zip(batch, latents, strict=True) if number in self.items}
        if self.previews.are_due(step):
            seconds = self.previews.show(step, going_on)
            self.latency = self.latency.model_copy(update={"preview": self.latency.preview + seconds})
            self._stage_began += seconds
            self.clock.skip()
        self.previews.remember(step, going_on)

    def _end_stage(self, stage: str) -> None:
        now = time.monotonic()
        self.latency = self.latency.model_copy(update={stage: now - self._stage_began})
        self._stage_began = now

    def _report(self, stage: Stage, fraction: float, step: int = 0, eta_s: float | None = None) -> None:
        """Report a stage, and drop the jobs that shall stop here."""
        for number in self.items:
            job = self.jobs[number]
            total = job.request.num_inference_steps
            job.on_progress(Progress(stage=stage, step=step, total_steps=total, fraction=fraction, eta_s=eta_s))
            if job.should_stop():
                self.stopped.add(number)
        self.items = [number for number in self.items if number not in self.stopped]

    def _drop_invalid(self, batch: list[int], latents: Tensor) -> None:
        for number, item in zip(batch, latents, strict=True):
            if number in self.items and (problem := problem_with_latents(item)):
                self.problems[number] = problem
                self.items.remove(number)

    def _without_dropped(self, batch: list[int], tensors: dict[str, Any]) -> dict[str, Any]:
        """The tensors of the jobs that go on; what the scheduler keeps from step to step goes the same way."""
        self._leave_if_nothing_is_left()
        if self.items == batch:
            return tensors
        self.shrank = True
        kept = [batch.index(number) for number in self.items]
        shape = tensors["latents"].shape

        def keep(value: Any) -> Any:
            if isinstance(value, list):
                return [keep(part) for part in value]
            return value[kept] if isinstance(value, Tensor) and value.shape == shape else value

        for name, value in vars(self.pipe.scheduler).items():
            setattr(self.pipe.scheduler, name, keep(value))
        self.on_drop(kept)
        return {name: None if value is None else value[kept] for name, value in tensors.items()}

    def _leave_if_nothing_is_left(self) -> None:
        if not self.items:
            raise NothingLeftError
