"""Mode `channel`: reuse as published, one channel of one token at a time (arXiv 2511.12035, section 4).

This is the reference of meaning. It computes what the method computes and counts what the method would multiply; on
matrix hardware it runs no faster than dense attention, because single reused elements leave no gap in a tile.

Shapes: B batch, N tokens, H heads, D head_dim; T, Y, X the latent grid.
"""

import torch
from torch import Tensor

from ripple_core.attention.dense import dense_attention
from ripple_core.attention.grid import LatentGrid

# Dimensions of [B, T, Y, X, H, D]. Snapped in this order, so a token reuses across t if it can, else x, else y.
_AXIS_Y, _AXIS_X, _AXIS_T = 2, 3, 1


def channel_attention(
    query_BNHD: Tensor,
    key_BNHD: Tensor,
    value_BNHD: Tensor,
    grid: LatentGrid,
    theta: float,
    scale: float | None = None,
    text_before: int = 0,
) -> tuple[Tensor, Tensor]:
    """Attention whose score products are reused between neighbours.

    A reused partial score q_c k_c is its neighbour's, so it equals the product of the neighbour's elements: replacing
    the elements and multiplying densely gives the same sums. Softmax and V are untouched.

    Args:
        query_BNHD: ``[batch, tokens, heads, head_dim]``, after RoPE, video tokens in grid order.
        key_BNHD: the same, with the video at the same place; tokens after it may be fewer.
        value_BNHD: the shape of key_BNHD.
        grid: where the video's tokens lie; tokens before and after them are exact.
        theta: threshold on a channel's spread in a window of two neighbours, in units of query and key.
        scale: of the scores; 1 / sqrt(head_dim) by default.
        text_before: tokens before the video's.

    Returns:
        The output ``[batch, tokens, heads, head_dim]``, and the score savings of each head
        ``[batch, heads]``: 1 - (1 - r_q)(1 - r_k), with r the reused fraction of all elements.
    """
    query_BNHD, reused_q = _reuse_in_video(query_BNHD, grid, theta, text_before)
    key_BNHD, reused_k = _reuse_in_video(key_BNHD, grid, theta, text_before)
    out = dense_attention(query_BNHD, key_BNHD, value_BNHD, scale)
    return out, 1 - (1 - reused_q) * (1 - reused_k)


def _reuse_in_video(x_BNHD: Tensor, grid: LatentGrid, theta: float, text_before: int) -> tuple[Tensor, Tensor]:
    """`reuse_neighbours` on the video's tokens; the fraction is of all tokens' elements."""
    tokens = x_BNHD.shape[1]
    sizes = (text_before, grid.num_tokens, tokens - text_before - grid.num_tokens)
    before, video, after = x_BNHD.split(sizes, dim=1)
    video, reused_BH = reuse_neighbours(video, grid, theta)
    if video.shape[1] < tokens:
        video = torch.cat([before, video, after], dim=1)
    return video, reused_BH * grid.num_tokens / tokens


def reuse_neighbours(x_BNHD: Tensor, grid: LatentGrid, theta: float) -> tuple[Tensor, Tensor]:
    """Replace every reusable element by that of the neighbour it shares a window with.

    Each axis is cut into windows of two. An element is reusable along an axis when the spread of its channel over
    the window, |v0 - v1| / 2, is below theta, and reusable at all when any axis allows it. The window's first token
    is the one computed; the second takes its value, which may itself come from a neighbour along another axis. A
    last token without a partner (odd axis) is computed.

    Args:
        x_BNHD: ``[batch, tokens, heads, head_dim]``.
        grid: where the tokens lie.
        theta: threshold, at least 0.

    Returns:
        The tensor with neighbours' values, and the reused fraction ``[batch, heads]`` (float32).
    """
    batch, tokens, heads, head_dim = x_BNHD.shape
    assert tokens == grid.num_tokens, f"{tokens} tokens on a grid of {grid.num_tokens}"
    original = x_BNHD.reshape(batch, grid.frames, grid.height, grid.width, heads, head_dim)
    result = original
    reused = torch.zeros_like(original, dtype=torch.bool)
    for axis in (_AXIS_Y, _AXIS_X, _AXIS_T):
        can_reuse = _second_of_close_pair(original, axis, theta)
        result = torch.where(can_reuse, result.roll(1, axis), result)
        reused |= can_reuse
    fraction_BH = reused.float().mean(dim=(1, 2, 3, 5))
    return result.reshape(x_BNHD.shape), fraction_BH


def _second_of_close_pair(x_BTYXHD: Tensor, axis: int, theta: float) -> Tensor:
    """True where an element is the second of its window along the axis and the window's spread is below theta."""
    length = x_BTYXHD.shape[axis]
    position = torch.arange(length, device=x_BTYXHD.device).view(-1, *[1] * (x_BTYXHD.ndim - axis - 1))
    spread = (x_BTYXHD - x_BTYXHD.roll(1, axis)).abs() / 2
    return (position % 2 == 1) & (spread < theta)
