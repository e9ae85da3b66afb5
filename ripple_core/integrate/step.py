"""Where in the denoising loop a forward call stands."""

from dataclasses import dataclass
from typing import Any

from diffusers.hooks.hooks import BaseState, ModelHook, StateManager
from torch import nn


@dataclass(frozen=True)
class Step:
    """Denoising step `index` of `total`."""

    index: int
    total: int


class _NoState(BaseState):
    """StateManager wants a state class; ours needs the context only."""

    def reset(self, *_: Any, **__: Any) -> None:
        """Nothing is kept."""


class StepContextHook(ModelHook):
    """Receives what a pipeline tells through `transformer.cache_context(name, step_index=..., ...)`.

    diffusers hands the context to every stateful hook that holds a StateManager.
    """

    _is_stateful = True

    def __init__(self) -> None:
        super().__init__()
        self.state_manager = StateManager(_NoState)

    def current(self) -> Step | None:
        """The step of the forward call under way, None outside a cache_context that names it."""
        context = self.state_manager._context
        if context is None or context.step_index is None or context.num_inference_steps is None:
            return None
        return Step(context.step_index, context.num_inference_steps)

    def reset_state(self, module: nn.Module) -> nn.Module:
        """Forget the context; called by diffusers between videos."""
        self.state_manager.reset()
        return module


class SchedulerSteps:
    """Reads the step off a pipeline's scheduler."""

    def __init__(self, pipe: Any) -> None:
        self._pipe = pipe
        self._schedule: Any = None
        self._first_timestep: float | None = None

    def current(self, timestep: Any) -> Step | None:
        """The step of a forward call, None before and after a denoising loop.

        The device is waited for in a loop's first step only, or in every call where the scheduler does not count its
        steps (CogVideoX's).

        Args:
            timestep: the transformer's argument, one number for the whole call or one for each token.
        """
        scheduler = self._pipe.scheduler
        if getattr(scheduler, "num_inference_steps", None) is None:
            return None
        total = len(scheduler.timesteps)
        if not hasattr(scheduler, "_step_index"):
            schedule, value = scheduler.timesteps.tolist(), _number(timestep)
            return Step(schedule.index(value), total) if value in schedule else None
        index = scheduler._step_index
        if index is None:  # until the first step of a loop is done
            return Step(getattr(scheduler, "_begin_index", None) or 0, total) if self._at_first(timestep) else None
        return Step(index, total) if index < total else None

    def _at_first(self, timestep: Any) -> bool:
        """False when the loop goes on although its scheduler stands still, as it does where a copy does the steps."""
        schedule, value = self._pipe.scheduler.timesteps, _number(timestep)
        if schedule is not self._schedule:
            self._schedule, self._first_timestep = schedule, value
        return value == self._first_timestep


def _number(timestep: Any) -> float | None:
    """Tokens of a frame that is given already have 0 for theirs."""
    return timestep.max().item() if hasattr(timestep, "max") else timestep
