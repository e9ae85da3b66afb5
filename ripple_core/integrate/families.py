"""What `apply_timeripple` must know of each transformer class. A new model family is one more entry here.

Every family flattens its video tokens with x fastest, then y, then t. `ripple_core.integrate.probe` tells for a class
that is not here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from ripple_core.attention import LatentGrid

# Where tokens other than the video's are in the self-attention.
Text = Literal["none", "before", "after"]
# How the stock processor reaches its attention kernel.
Kernel = Literal["dispatcher", "sdpa"]
Arguments = Mapping[str, Any]


@dataclass(frozen=True)
class Family:
    """Where a transformer keeps its video self-attention and how its input becomes a grid.

    Args:
        layers: pairs of a module list and the self-attention's name in each of its blocks, in order of execution.
        grid: the latent grid of a forward call, from the transformer and the call's arguments by name; None when the
            arguments do not tell.
        text: where text (or an image's) tokens stand in the self-attention's sequence.
        kernel: "dispatcher" when the processor calls diffusers' `dispatch_attention_fn` with its own
            `_attention_backend` and `_parallel_config`, "sdpa" when it calls `F.scaled_dot_product_attention`.
        refusal: why this very model cannot be supported, None when it can.
    """

    layers: tuple[tuple[str, str], ...]
    grid: Callable[[Any, Arguments], LatentGrid | None]
    text: Text = "none"
    kernel: Kernel = "dispatcher"
    refusal: Callable[[Any], str | None] = lambda _: None

    def self_attention(self, transformer: Any) -> list[Any]:
        """The self-attention modules; each has a `processor` of its own."""
        return [
            block.get_submodule(name) for blocks, name in self.layers for block in transformer.get_submodule(blocks)
        ]


def grid_of_latents(first_dim: int = 2) -> Callable[[Any, Arguments], LatentGrid]:
    """Grid of ``hidden_states`` whose dimensions from first_dim are frames, height and width of latents."""

    def grid(transformer: Any, arguments: Arguments) -> LatentGrid:
        frames, height, width = arguments["hidden_states"].shape[first_dim : first_dim + 3]
        return _patched(transformer, frames, height, width)

    return grid


def _cogvideox_grid(transformer: Any, arguments: Arguments) -> LatentGrid:
    """``[batch, frames, channels, height, width]``."""
    _, frames, _, height, width = arguments["hidden_states"].shape
    return _patched(transformer, frames, height, width)


def _packed_grid(transformer: Any, arguments: Arguments) -> LatentGrid | None:
    """Tokens come packed, with the latent's sizes beside them (LTX); by coordinates alone it is unknown."""
    frames, height, width = (arguments.get(name) for name in ("num_frames", "height", "width"))
    if frames is None or height is None or width is None:
        return None
    return _patched(transformer, frames, height, width)


def _patched(transformer: Any, frames: int, height: int, width: int) -> LatentGrid:
    config = transformer.config
    patch = config.patch_size
    if isinstance(patch, int):
        # CogVideoX 1.0 has None for one frame per patch; Mochi and EasyAnimate have no such setting.
        patch = (getattr(config, "patch_size_t", None) or 1, patch, patch)
    return LatentGrid(frames // patch[0], height // patch[1], width // patch[2])


def _skyreels_refusal(transformer: Any) -> str | None:
    if transformer.config.num_frame_per_block > 1:
        return "its attention is causal from block to block of frames (num_frame_per_block > 1)"
    return None


def _kandinsky5_refusal(transformer: Any) -> str | None:
    if transformer.config.attention_type != "regular":
        return f"attention_type {transformer.config.attention_type!r} reorders the video's tokens; 'regular' works"
    return None


_BLOCKS = (("blocks", "attn1"),)
_TRANSFORMER_BLOCKS = (("transformer_blocks", "attn1"),)
_DUAL_AND_SINGLE = (("transformer_blocks", "attn"), ("single_transformer_blocks", "attn"))

FAMILIES: dict[str, Family] = {
    "WanTransformer3DModel": Family(_BLOCKS, grid_of_latents()),
    "WanVACETransformer3DModel": Family((("vace_blocks", "attn1"), *_BLOCKS), grid_of_latents()),
    "ChronoEditTransformer3DModel": Family(_BLOCKS, grid_of_latents()),
    "SkyReelsV2Transformer3DModel": Family(_BLOCKS, grid_of_latents(), refusal=_skyreels_refusal),
    "HunyuanVideoTransformer3DModel": Family(_DUAL_AND_SINGLE, grid_of_latents(), "after"),
    "HunyuanVideo15Transformer3DModel": Family((("transformer_blocks", "attn"),), grid_of_latents(), "after"),
    # In its decoder layers the encoder's video tokens follow the decoder's; they stay exact, as text does.
    "MotifVideoTransformer3DModel": Family(_DUAL_AND_SINGLE, grid_of_latents(), "after"),
    "CogVideoXTransformer3DModel": Family(_TRANSFORMER_BLOCKS, _cogvideox_grid, "before", "sdpa"),
    "EasyAnimateTransformer3DModel": Family(_TRANSFORMER_BLOCKS, grid_of_latents(), "before", "sdpa"),
    "LTXVideoTransformer3DModel": Family(_TRANSFORMER_BLOCKS, _packed_grid),
    # Keyframes and reference tokens follow the video.
    "LTX2VideoTransformer3DModel": Family(_TRANSFORMER_BLOCKS, _packed_grid, "after"),
    "MochiTransformer3DModel": Family(_TRANSFORMER_BLOCKS, grid_of_latents(), "after", "sdpa"),
    "AllegroTransformer3DModel": Family(_TRANSFORMER_BLOCKS, grid_of_latents(), "none", "sdpa"),
    "CosmosTransformer3DModel": Family(_TRANSFORMER_BLOCKS, grid_of_latents(), "none", "sdpa"),
    "Kandinsky5Transformer3DModel": Family(
        (("visual_transformer_blocks", "self_attention"),), grid_of_latents(1), refusal=_kandinsky5_refusal
    ),
}

# Known, and why not; a pipeline's name here goes before its transformer's support.
REFUSED: dict[str, str] = {
    "SanaVideoTransformer3DModel": "its self-attention is linear and has no scores to reuse",
    "LatteTransformer3DModel": "its attention is split into one frame and one pixel at a time, never over the video",
    "HunyuanVideoFramepackTransformer3DModel": "it puts frames of several resolutions into one sequence",
    "HeliosTransformer3DModel": "it puts frames of several resolutions into one sequence",
    "Cosmos3OmniTransformer": "its attention has grouped heads and text keys without queries",
    "SkyReelsV2DiffusionForcingPipeline": "its frames stand at different denoising steps",
    "SkyReelsV2DiffusionForcingImageToVideoPipeline": "its frames stand at different denoising steps",
    "SkyReelsV2DiffusionForcingVideoToVideoPipeline": "its frames stand at different denoising steps",
}


def family_of(transformer: nn.Module) -> Family:
    """The family of a transformer.

    Raises:
        ValueError: for a class or a model that is not supported, naming those that are.
    """
    name = type(transformer).__name__
    family = FAMILIES.get(name)
    reason = family.refusal(transformer) if family else REFUSED.get(name)
    if family and not reason:
        return family
    raise unsupported(name, reason)


def unsupported(name: str, reason: str | None) -> ValueError:
    """The error for a class that is not supported."""
    because = f": {reason}" if reason else "; see ripple_core.integrate.probe for how to add a video transformer"
    return ValueError(f"{name} is not supported{because}. Supported are: {', '.join(FAMILIES)}")
