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


def scheduler_step(scheduler: Any, timestep: Any) -> Step | None:
    """The step at which a pipeline's scheduler stands, None before and after a denoising loop.

    Nothing is read from the device where the scheduler counts its steps (all but CogVideoX's do).

    Args:
        scheduler: of the pipeline, `set_timesteps` done.
        timestep: the transformer's argument, to look up in the schedule of a scheduler that does not count.
    """
    if getattr(scheduler, "num_inference_steps", None) is None:
        return None
    total = len(scheduler.timesteps)
    if hasattr(scheduler, "_step_index"):
        # None until the first step of a loop is done.
        index = scheduler._step_index
        if index is None:
            index = getattr(scheduler, "_begin_index", None) or 0
        return Step(index, total) if index < total else None
    schedule = scheduler.timesteps.tolist()
    value = timestep.max().item() if hasattr(timestep, "max") else timestep
    return Step(schedule.index(value), total) if value in schedule else None
