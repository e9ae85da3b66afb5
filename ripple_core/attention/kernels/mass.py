"""Second pass, first part: attention mass between cells, and from it the mass of every key tile for every query tile.

Scores between cells are computed once: a softmax in progress leaves, beside its sums by key tile, the maximum that
they are relative to, and `_mean_mass` puts both right when the row's total is known.

Shapes as in `prepare.py`.
"""

import math
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from ripple_core.attention.kernels.layout import KernelLayout, QueryTiles
from ripple_core.attention.kernels.prepare import PreparedKeys, PreparedQueries, Video, block_d, dot, head_at, rounded

_ROWS_AT_ONCE = 128
_KEY_CELLS_AT_ONCE = 64
_TEXT_AT_ONCE = 64
_TILES_AT_ONCE = 64


@dataclass(frozen=True)
class Mass:
    """Attention mass by tiles.

    Attributes:
        root_mean_square: over the cells of a query tile ``[G, Q, T]``, float32.
        output: of the mean query, values averaged over key tiles ``[G, Q, D]``, float32.
    """

    root_mean_square: Tensor
    output: Tensor


def tile_mass(
    video: Video, keys: PreparedKeys, queries: PreparedQueries, layout: KernelLayout, chosen: QueryTiles, scale: float
) -> Mass:
    """Masses for some query tiles; text takes its share of them."""
    key, groups, head_dim = video.key, video.groups, video.head_dim
    tiles, rows, num_video = len(layout.tile_start), chosen.num_rows, len(layout.order)
    tiles_at_once = max(_KEY_CELLS_AT_ONCE // layout.cells, 1)
    blocks = triton.cdiv(tiles, tiles_at_once)
    # Kept in the dtype of the inputs: half the memory, and 8 bits are more than the estimate is worth.
    sums = key.new_empty(groups, rows, tiles)
    maximum = key.new_empty(groups, rows, blocks, dtype=torch.float32)
    total = key.new_empty(groups, rows, dtype=torch.float32)
    _cell_mass[triton.cdiv(rows, _ROWS_AT_ONCE), groups](
        video.skip, queries.cell_query, keys.cell_key, layout.tile_cell_count, key, *key.stride()[:3],
        sums, maximum, total,
        scale * math.log2(math.e), video.heads, video.first, rows, tiles, blocks,
        video.text_before, key.shape[1] - num_video, num_video,
        HEAD_DIM=head_dim, BLOCK_D=block_d(head_dim), CELLS=layout.cells, TILES=tiles_at_once, ROWS=_ROWS_AT_ONCE,
        TEXT_AT_ONCE=_TEXT_AT_ONCE, num_warps=8,
    )  # fmt: skip
    mass = key.new_empty(groups, len(chosen), tiles, dtype=torch.float32)
    output = key.new_empty(groups, len(chosen), head_dim, dtype=torch.float32)
    _mean_mass[len(chosen), groups](
        video.skip, sums, maximum, total, layout.cell_count, chosen.first_cell, chosen.cells, chosen.first_row,
        keys.tile_value, mass, output,
        rows, tiles, blocks,
        HEAD_DIM=head_dim, BLOCK_D=block_d(head_dim), TILES=tiles_at_once, CELL_ROWS=layout.query_cells,
        AT_ONCE=_TILES_AT_ONCE,
    )  # fmt: skip
    return Mass(mass, output)


@triton.jit
def _running_sum(score, m, z):
    """Powers of two relative to the maximum m, m, and their sum z, one block further."""
    m_new = tl.maximum(m, tl.max(score, 1))
    p = tl.exp2(score - m_new[:, None])
    return p, m_new, z * tl.exp2(m - m_new) + tl.sum(p, 1)


@triton.jit(do_not_specialize=["first_head", "num_rows", "text_before", "text"])
def _cell_mass(
    skip, cell_query, cell_key, tile_cell_count, key, key_b, key_n, key_h,
    sums, maximum, total,
    log2_scale, heads, first_head, num_rows, tiles, blocks, text_before, text, num_video,
    HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, CELLS: tl.constexpr, TILES: tl.constexpr, ROWS: tl.constexpr,
    TEXT_AT_ONCE: tl.constexpr,
):  # fmt: skip
    """Some query cells of one head against all key cells and all text."""
    group = tl.program_id(1).to(tl.int64)
    if tl.load(skip + group) != 0:
        return
    channel = tl.arange(0, BLOCK_D)
    is_channel = (channel < HEAD_DIM)[None, :]
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    is_row = row < num_rows
    row = group * num_rows + row
    q = tl.load(cell_query + row[:, None] * HEAD_DIM + channel[None, :], mask=is_row[:, None] & is_channel, other=0.0)
    m = tl.full([ROWS], -float("inf"), tl.float32)
    z = tl.zeros([ROWS], tl.float32)
    for block in range(blocks):
        cell = block * (TILES * CELLS) + tl.arange(0, TILES * CELLS)
        inside = cell < tiles * CELLS
        count = tl.load(tile_cell_count + cell, mask=inside, other=0)
        at = (group * tiles * CELLS + cell)[:, None] * HEAD_DIM + channel[None, :]
        k = tl.load(cell_key + at, mask=inside[:, None] & is_channel, other=0.0)
        bias = tl.where(count > 0, tl.log2(tl.maximum(count, 1).to(tl.float32)), -float("inf"))
        p, m, z = _running_sum(dot(q, tl.trans(k)) * log2_scale + bias[None, :], m, z)
        by_tile = tl.sum(tl.reshape(p, [ROWS, TILES, CELLS]), 2)
        tile = block * TILES + tl.arange(0, TILES)
        at = row[:, None] * tiles + tile[None, :]
        tl.store(sums + at, rounded(by_tile, q.dtype), mask=is_row[:, None] & (tile < tiles)[None, :])
        tl.store(maximum + row * blocks + block, m, mask=is_row)
    key = head_at(key, key_b, key_h, first_head, heads)
    for first in range(0, text, TEXT_AT_ONCE):
        number = first + tl.arange(0, TEXT_AT_ONCE)
        token = tl.where(number < text_before, number, number + num_video).to(tl.int64)
        k = tl.load(
            key + token[:, None] * key_n + channel[None, :], mask=(number < text)[:, None] & is_channel, other=0.0
        )
        score = tl.where((number < text)[None, :], dot(q, tl.trans(k)) * log2_scale, -float("inf"))
        p, m, z = _running_sum(score, m, z)
    tl.store(total + row, m + tl.log2(z), mask=is_row)


@triton.jit(do_not_specialize=["num_rows"])
def _mean_mass(
    skip, sums, maximum, total, cell_count, first_cell, query_cells, first_row, tile_value, mass, output,
    num_rows, tiles, blocks,
    HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, TILES: tl.constexpr, CELL_ROWS: tl.constexpr, AT_ONCE: tl.constexpr,
):  # fmt: skip
    """One query tile of one head: over its cells, each by its number of tokens."""
    query_tile, group = tl.program_id(0), tl.program_id(1).to(tl.int64)
    if tl.load(skip + group) != 0:
        return
    channel = tl.arange(0, BLOCK_D)
    is_channel = (channel < HEAD_DIM)[None, :]
    number = tl.arange(0, CELL_ROWS)
    is_row = number < tl.load(query_cells + query_tile)
    weight = tl.load(cell_count + tl.load(first_cell + query_tile) + number, mask=is_row, other=0).to(tl.float32)
    weight = (weight / tl.sum(weight, 0))[:, None]
    row = group * num_rows + tl.load(first_row + query_tile) + number
    row_total = tl.load(total + row, mask=is_row, other=0.0)[:, None]
    pair = (group * tl.num_programs(0) + query_tile) * tiles
    out = tl.zeros([BLOCK_D], tl.float32)
    for first in range(0, tiles, AT_ONCE):
        tile = first + tl.arange(0, AT_ONCE)
        both = is_row[:, None] & (tile < tiles)[None, :]
        share = tl.load(sums + row[:, None] * tiles + tile[None, :], mask=both, other=0.0).to(tl.float32)
        at_most = tl.load(maximum + row[:, None] * blocks + (tile // TILES)[None, :], mask=both, other=-float("inf"))
        share *= tl.exp2(at_most - row_total)
        tl.store(mass + pair + tile, tl.sqrt(tl.sum(share * share * weight, 0)), mask=tile < tiles)
        v_at = (group * tiles + tile)[:, None] * HEAD_DIM + channel[None, :]
        v = tl.load(tile_value + v_at, mask=(tile < tiles)[:, None] & is_channel, other=0.0).to(tl.float32)
        out += tl.sum(tl.sum(share * weight, 0)[:, None] * v, 0)
    at = (group * tl.num_programs(0) + query_tile) * HEAD_DIM + channel
    tl.store(output + at, out, mask=channel < HEAD_DIM)
