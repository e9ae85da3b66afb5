"""What `apply_timeripple` must know of a transformer class. A new model family is one more entry here."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ripple_core.attention import LatentGrid


@dataclass(frozen=True)
class Family:
    """Where a transformer keeps its video self-attention and how its input becomes a grid.

    Args:
        self_attention: the self-attention modules in order of execution; each has a `processor` of its own.
        grid: the latent grid of an input ``hidden_states``.
        context_module: a submodule that runs once per forward, to hang the step-context hook on. It is not the
            transformer itself, because accelerate's offloading drops hooks on that after the first call.
    """

    self_attention: Callable[[Any], list[Any]]
    grid: Callable[[Any, Tensor], LatentGrid]
    context_module: Callable[[Any], nn.Module]


def _wan_grid(transformer: Any, hidden_states: Tensor) -> LatentGrid:
    """hidden_states is ``[batch, channels, frames, height, width]`` of latents."""
    sizes = zip(hidden_states.shape[2:], transformer.config.patch_size, strict=True)
    return LatentGrid(*(size // patch for size, patch in sizes))


FAMILIES: dict[str, Family] = {
    "WanTransformer3DModel": Family(
        self_attention=lambda transformer: [block.attn1 for block in transformer.blocks],
        grid=_wan_grid,
        context_module=lambda transformer: transformer.rope,
    ),
}


def family_of(transformer: nn.Module) -> Family:
    """The family of a transformer.

    Raises:
        ValueError: for a class that is not supported, naming those that are.
    """
    name = type(transformer).__name__
    if name not in FAMILIES:
        raise ValueError(f"{name} is not supported; supported are: {', '.join(FAMILIES)}")
    return FAMILIES[name]
