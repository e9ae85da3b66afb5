"""Finds out how an unknown video transformer lays out its tokens, instead of guessing.

Every token's query is made the same vector. What then differs between the queries at the attention kernel is the
position embedding alone: on a small grid of three different sizes it shows the tokens' order, where the video starts
among text tokens, and which channels of each head turn with t, y and x.

    layout = probe(transformer, (("blocks", "attn"),), LatentGrid(3, 4, 5), lambda: transformer(**inputs))
    handle = apply_timeripple(transformer, config, family=layout.family())
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ripple_core.attention import LatentGrid
from ripple_core.integrate.families import Arguments, Family, Text, grid_of_latents

AXES = "tyx"
NO_AXIS, SEVERAL_AXES = -1, -2
_QUERY_PROJECTIONS = ("to_q", "to_query")


@dataclass(frozen=True)
class TokenLayout:
    """What `probe` found.

    Attributes:
        order: axes from the slowest to the fastest, "tyx" in every supported family.
        text_before: tokens before the video's.
        text_after: tokens after them.
        axis_of_channel: ``[heads, head_dim]``, 0 t, 1 y, 2 x; -1 where a channel does not turn, -2 where it turns with
            several axes at once (Mochi).
    """

    order: str
    text_before: int
    text_after: int
    axis_of_channel: Tensor
    _layers: tuple[tuple[str, str], ...]
    _dispatches: bool

    def family(self, grid: Callable[[Any, Arguments], LatentGrid | None] | None = None) -> Family:
        """What `apply_timeripple(family=...)` takes.

        Args:
            grid: as in `Family`; by default ``hidden_states`` is ``[batch, channels, frames, height, width]`` and
                config.patch_size says how many latents are a token.

        Raises:
            ValueError: for a layout that no family has.
        """
        if self.order != AXES or (self.text_before and self.text_after):
            raise ValueError(f"video tokens must lie in order {AXES} with text before or after them, not {self}")
        text: Text = "before" if self.text_before else "after" if self.text_after else "none"
        return Family(
            self._layers, grid or grid_of_latents(), text, kernel="dispatcher" if self._dispatches else "sdpa"
        )


@torch.no_grad()
def probe(
    transformer: Any, layers: tuple[tuple[str, str], ...], grid: LatentGrid, forward: Callable[[], object]
) -> TokenLayout:
    """Run one forward call and read the layout off the first layer's queries.

    Args:
        transformer: with torch's own attention kernel, no parallelism.
        layers: where the self-attention modules are, as in `Family`.
        grid: of the call's video tokens; frames, height and width all differ and are at least 3.
        forward: calls the transformer.

    Raises:
        ValueError: when nothing turns with the position (no RoPE), or no order fits.
    """
    sizes = (grid.frames, grid.height, grid.width)
    if len(set(sizes)) < len(sizes) or min(sizes) < 3:
        raise ValueError(f"the grid is {grid}; its sizes must differ and be at least 3")
    attention = Family(layers, grid_of_latents()).self_attention(transformer)[0]
    query_HND = _queries_at_the_kernel(attention, forward)
    num_tokens = query_HND.shape[1]
    for before, order in itertools.product(
        range(num_tokens - grid.num_tokens + 1), itertools.permutations(range(len(AXES)))
    ):
        video_HND = query_HND[:, before : before + grid.num_tokens]
        axes = _axis_of_channel(video_HND.unflatten(1, [sizes[axis] for axis in order]), order)
        if axes is not None:
            return TokenLayout(
                "".join(AXES[axis] for axis in order),
                before,
                num_tokens - grid.num_tokens - before,
                axes,
                layers,
                hasattr(attention.processor, "_attention_backend"),
            )
    raise ValueError("no order of the tokens explains how the queries turn; without RoPE the probe sees nothing")


def _axis_of_channel(query_HABCD: Tensor, order: tuple[int, ...]) -> Tensor | None:
    """The table when every channel (or, in Mochi, every turn) fits this order of axes, else None."""
    depends = torch.stack(
        [_spread(query_HABCD, dim) > 1e-6 * query_HABCD.abs().max() for dim in (1, 2, 3)]
    )  # [3, heads, head_dim]
    count_HD = depends.sum(0)
    if not depends.flatten(1).any(dim=1).all():
        return None
    if count_HD.max() == 1:
        axis_of_dim = torch.tensor(order)
        return torch.where(count_HD == 1, axis_of_dim[depends.int().argmax(0)], NO_AXIS)
    # One step along an axis turns a pair of channels by the same angle wherever it starts on the other axes.
    pairs = torch.view_as_complex(query_HABCD.float().unflatten(-1, (-1, 2)).contiguous())
    for dim in (1, 2, 3):
        turn = pairs.narrow(dim, 1, pairs.shape[dim] - 1) * pairs.narrow(dim, 0, pairs.shape[dim] - 1).conj()
        others = [other for other in (1, 2, 3) if other != dim]
        if any((turn - turn.narrow(other, 0, 1)).abs().max() > 1e-3 * turn.abs().max() for other in others):
            return None
    return torch.where(count_HD == 0, NO_AXIS, SEVERAL_AXES)


def _spread(query_HABCD: Tensor, dim: int) -> Tensor:
    """How much each channel changes along one axis ``[heads, head_dim]``."""
    return (query_HABCD.amax(dim) - query_HABCD.amin(dim)).amax((1, 2))


def _queries_at_the_kernel(attention: Any, forward: Callable[[], object]) -> Tensor:
    """``[heads, tokens, head_dim]`` of one item, float64, made of one vector before the position embedding."""
    projection = next(getattr(attention, name) for name in _QUERY_PROJECTIONS if hasattr(attention, name))

    def same_for_all(_module: Any, _args: Any, out: Tensor) -> Tensor:
        return torch.linspace(1, 2, out.shape[-1], dtype=out.dtype, device=out.device).expand(out.shape)

    seen = _SeenQueries()
    hooks = [
        projection.register_forward_hook(same_for_all),
        attention.register_forward_pre_hook(lambda *_: seen.__enter__() and None),
        attention.register_forward_hook(lambda *_: seen.__exit__(None, None, None)),
    ]
    try:
        forward()
    finally:
        for hook in hooks:
            hook.remove()
    if seen.first is None:
        raise ValueError("the attention module did not call torch's own kernel")
    return seen.first[0].double()


class _SeenQueries(TorchFunctionMode):
    """Keeps the query ``[batch, heads, tokens, head_dim]`` of the first call of the kernel."""

    first: Tensor | None = None

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is F.scaled_dot_product_attention and self.first is None:
            self.first = args[0] if args else (kwargs or {})["query"]
        return func(*args, **(kwargs or {}))
