"""Queries, keys and values to time attention on: the built-in model's own, and a synthetic field.

Shapes: B batch, N tokens, H heads, D head_dim; T, Y, X the latent grid.
"""

from collections.abc import Container, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ripple_core.attention import AttentionCall, LatentGrid, RunDense, dense_attention
from ripple_core.contract.errors import InvalidRequest, Violation
from ripple_core.contract.models import find_model
from ripple_core.contract.request import GenerateRequest, ReuseSettings
from ripple_core.contract.validate import resolve
from ripple_core.generate import generate_frames, load_model
from ripple_core.integrate import apply_method

Source = Literal["builtin", "synthetic"]

_STEPS, _CAPTURED_STEP = 20, 10
_PROMPT = "a red circle moving left on a dark background"
# The synthetic field: waves of about this many tokens, with white noise of this share of their size.
_WAVELENGTH, _NOISE = 4, 0.3
# Of queries and keys, so that scores spread as in trained models; values have size 1.
_SCORE_SIZE = 1.5


@dataclass(frozen=True)
class AttentionInputs:
    """Query, key and value ``[1, N, H, D]``: text, video tokens in grid order, text."""

    query: Tensor
    key: Tensor
    value: Tensor
    grid: LatentGrid
    text_before: int = 0

    def dense(self) -> Tensor:
        """torch's own attention ``[1, N, H, D]``."""
        return dense_attention(self.query, self.key, self.value)


def grid_of(tokens: int) -> LatentGrid:
    """A grid of tokens / 1024 frames of 32x32.

    Raises:
        InvalidRequest: when tokens is no multiple of 1024.
    """
    if tokens % 1024 or tokens < 1024:
        message = f"{tokens} tokens make no grid; ask for a multiple of 1024, frames of 32x32."
        raise InvalidRequest([Violation("tokens", message, "multiples of 1024")])
    return LatentGrid(tokens // 1024, 32, 32)


def make_inputs(source: Source, tokens: int, heads: int, head_dim: int) -> AttentionInputs:
    """Smooth inputs of any size in float32, on the CPU.

    Raises:
        InvalidRequest: for tokens or a head_dim that cannot be made.
    """
    grid = grid_of(tokens)
    if source == "synthetic":
        return synthetic_inputs(grid, heads, head_dim)
    query, key, value = _tiled_up(grid, heads, head_dim)
    return AttentionInputs(query, key, value, grid)


def synthetic_inputs(
    grid: LatentGrid,
    heads: int,
    head_dim: int,
    seed: int = 0,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    noise: float = _NOISE,
    text: tuple[int, int] = (0, 0),
) -> AttentionInputs:
    """Smooth fields, the same for a seed and a kind of device.

    Args:
        noise: size of the white noise in relation to the waves'.
        text: tokens before and after the video's, white noise.
    """
    generator = torch.Generator(device).manual_seed(seed)

    def with_text(video: Tensor) -> Tensor:
        before, after = (
            torch.randn(1, count, heads, head_dim, generator=generator, device=generator.device) for count in text
        )
        return torch.cat([before, video, after], 1).to(dtype)

    query, key, value = (with_text(field) for field in _fields(grid, heads, head_dim, generator, noise))
    return AttentionInputs(query, key, value, grid, text[0])


def _fields(grid: LatentGrid, heads: int, head_dim: int, generator: torch.Generator, noise: float) -> Iterator[Tensor]:
    """Independent channels: white noise on a grid _WAVELENGTH times coarser, interpolated, plus white noise."""
    device = generator.device
    sizes = (grid.frames, grid.height, grid.width)
    coarse = [max(size // _WAVELENGTH, 2) for size in sizes]
    for size in (_SCORE_SIZE, _SCORE_SIZE, 1.0):
        waves = torch.randn(heads * head_dim, 1, *coarse, generator=generator, device=device)
        field = F.interpolate(waves, size=sizes, mode="trilinear", align_corners=True)[:, 0]
        field = field / field.std(dim=(1, 2, 3), keepdim=True)
        field = field + noise * torch.randn(field.shape, generator=generator, device=device)
        yield (size * field).view(heads, head_dim, -1).permute(2, 0, 1)[None].contiguous()


class _Capture:
    """Stock attention; keeps what the calls of some denoising steps were given."""

    name = "capture"
    aggressiveness = 0.0

    def __init__(self, steps: Container[int]) -> None:
        self._steps = steps
        self.calls: dict[tuple[int, int], AttentionInputs] = {}

    def attend(self, query: Tensor, key: Tensor, value: Tensor, call: AttentionCall) -> RunDense:
        """See `AttentionMethod`."""
        if call.step in self._steps:
            inputs = AttentionInputs(query.clone(), key.clone(), value.clone(), call.grid)
            self.calls.setdefault((call.step, call.layer), inputs)
        return RunDense()


def builtin_calls(steps: Container[int]) -> dict[tuple[int, int], AttentionInputs]:
    """What the built-in model's attention is given in one video, by (denoising step of 20, layer)."""
    model = load_model(find_model("builtin"), "cpu", "float32")
    request = GenerateRequest(
        prompt=_PROMPT, seed=0, num_inference_steps=_STEPS, guidance_scale=1.0, reuse=ReuseSettings(mode="dense")
    )
    capture = _Capture(steps)
    generate_frames(model, resolve(request, model.spec), apply=lambda transformer: apply_method(transformer, capture))
    return capture.calls


def _tiled_up(grid: LatentGrid, heads: int, head_dim: int) -> Iterator[Tensor]:
    """Heads of all layers of the built-in model in turn, mirrored in t, y and x until the grid is full.

    Where head_dim is a multiple of the model's, neighbouring heads are joined to one.
    """
    layers = list(builtin_calls({_CAPTURED_STEP}).values())
    own = (layers[0].grid.frames, layers[0].grid.height, layers[0].grid.width)
    for tensors in zip(*((layer.query, layer.key, layer.value) for layer in layers), strict=True):
        all_heads = torch.cat([tensor[0] for tensor in tensors], dim=1)
        own_dim = all_heads.shape[-1]
        if head_dim % own_dim:
            message = f"The built-in model's inputs come in a head_dim of {own_dim} or multiples of it, not {head_dim}."
            raise InvalidRequest([Violation("head_dim", message, f"multiples of {own_dim}")])
        wanted = heads * head_dim // own_dim
        chosen = all_heads[:, torch.arange(wanted) % all_heads.shape[1]]
        field = chosen.reshape(*own, heads, head_dim)
        for axis, size in enumerate((grid.frames, grid.height, grid.width)):
            field = field.index_select(axis, _mirrored(own[axis], size))
        yield field.reshape(1, grid.num_tokens, heads, head_dim).contiguous()


def _mirrored(length: int, size: int) -> Tensor:
    """Positions 0..length - 1, then back, and so on, `size` of them."""
    there_and_back = torch.cat([torch.arange(length), torch.arange(length).flip(0)])
    return there_and_back.repeat(-(-size // len(there_and_back)))[:size]
