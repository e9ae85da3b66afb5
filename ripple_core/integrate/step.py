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
