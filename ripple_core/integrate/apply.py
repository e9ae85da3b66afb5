"""`apply_timeripple`: puts reuse on a diffusers pipeline or transformer and takes it off again."""

from typing import Any

from torch import nn

from ripple_core.attention import AttentionMethod, TimeRippleConfig, method_of
from ripple_core.integrate.families import REFUSED, Family, family_of, unsupported
from ripple_core.integrate.handle import TimeRippleHandle

# Wan 2.2 A14B and its like have two, for the noisier and the cleaner steps of one loop.
_TRANSFORMERS_OF_A_PIPELINE = ("transformer", "transformer_2")


def apply_timeripple(
    model: Any, config: TimeRippleConfig | None = None, *, family: Family | None = None
) -> TimeRippleHandle:
    """Reuse attention work in a diffusers video pipeline or transformer until the handle's `remove()`.

    Only the video self-attention changes; text tokens in it stay exact. At aggressiveness 0 (or mode "dense") every
    call goes to the stock kernel with the stock arguments and is merely counted.

    The denoising step, on which reuse depends, is read from the pipeline's scheduler, in a sampling loop of
    your own too. A transformer alone learns it from `transformer.cache_context(name, step_index=i,
    num_inference_steps=n)`, which WanPipeline sets itself, or from `handle.set_step(i, n)` before each step's forward
    calls. Calls whose step is unknown run dense and are reported as fallbacks.

    Args:
        model: a pipeline, or a transformer of a supported class.
        config: the dial; aggressiveness 0.5 by default.
        family: describes a transformer of a class that is not supported by name, see `ripple_core.integrate.probe`.

    Returns:
        A handle with `remove()`, `report()` and `set_step()`. Under context parallelism it counts this rank's heads.

    Raises:
        ValueError: when the class or a setting is not supported, TimeRipple is on it already, or the configuration's
            profile is of a model with another number of layers.
    """
    config = config or TimeRippleConfig()
    handle = apply_method(model, method_of(config), family=family)
    if config.profile and len(config.profile.layer_factors) != handle.num_layers:
        handle.remove()
        layers = f"{len(config.profile.layer_factors)} layers, this one has {handle.num_layers}"
        raise ValueError(f"the profile is of a model with {layers}; use one of this model, or none")
    return handle


def apply_method(model: Any, method: AttentionMethod | None, *, family: Family | None = None) -> TimeRippleHandle:
    """Like `apply_timeripple`, with any other method in TimeRipple's place; None merely counts what runs."""
    pipe = None if isinstance(model, nn.Module) else model
    transformers = [model] if pipe is None else transformers_of(pipe)
    # torch.compile(transformer) wraps it.
    transformers = [getattr(transformer, "_orig_mod", transformer) for transformer in transformers]
    families = [family or family_of(transformer) for transformer in transformers]
    return TimeRippleHandle(list(zip(transformers, families, strict=True)), method, pipe)


def transformers_of(pipe: Any) -> list[Any]:
    """The transformers of a pipeline's denoising loop.

    Raises:
        ValueError: for a pipeline that is not supported.
    """
    name = type(pipe).__name__
    present = [getattr(pipe, attribute, None) for attribute in _TRANSFORMERS_OF_A_PIPELINE]
    transformers = [transformer for transformer in present if transformer is not None]
    if name in REFUSED or not transformers:
        raise unsupported(name, REFUSED.get(name, "it has no transformer"))
    return transformers
