"""First pass: means and variances of tiles and cells, in one read of query, key and value.

What it computes is `summarise_keys` and `summarise_queries` of `decide.py`.

Shapes: B batch, N query tokens, M key tokens, H heads, D head_dim; G the heads of all batch items that are worked on
together; T key tiles; Q query tiles; X room for cells in a tile; R cells of the query tiles, one after the other.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from ripple_core.attention.kernels.layout import KernelLayout, QueryTiles


@dataclass(frozen=True)
class Video:
    """Query, key and value of one call, and the heads of it that are worked on.

    Attributes:
        query: ``[B, N, H, D]``; channels lie side by side in memory, all else as it comes.
        key, value: ``[B, M, H, D]``, the same.
        text_before: tokens before the video's.
        first: the first head, counted through all batch items.
        groups: number of heads.
        skip: heads that are left alone from the second pass on, and whose results hold anything ``[G]``, int8.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    text_before: int
    first: int
    groups: int
    skip: Tensor

    @property
    def head_dim(self) -> int:
        """D."""
        return self.query.shape[3]

    @property
    def heads(self) -> int:
        """H."""
        return self.query.shape[2]


@dataclass(frozen=True)
class PreparedKeys:
    """What `KeySummary` is to the PyTorch path.

    Attributes:
        cell_key, cell_value: ``[G, T, X, D]``, in the dtype of the keys; 0 where a tile has fewer cells.
        tile_key, tile_value: ``[G, T, D]``.
        key_variance: of keys within cells and within the tile, by channel ``[2, G, T, D]``, float32.
        value_deviation: root of the sum of the values' variances ``[2, G, T]``, float32.
    """

    cell_key: Tensor
    cell_value: Tensor
    tile_key: Tensor
    tile_value: Tensor
    key_variance: Tensor
    value_deviation: Tensor


@dataclass(frozen=True)
class PreparedQueries:
    """What `QuerySummary` is to the PyTorch path, of all query tiles or of some.

    Attributes:
        cell_query: ``[G, R, D]``, in the dtype of the queries.
        mean_square: by channel ``[G, Q, D]``, float32.
    """

    cell_query: Tensor
    mean_square: Tensor


def prepare_keys(video: Video, layout: KernelLayout) -> PreparedKeys:
    """Summaries of the video's keys and values."""
    key, value, groups, head_dim = video.key, video.value, video.groups, video.head_dim
    tiles = len(layout.tile_start)
    cell_key, cell_value = (key.new_empty(groups, tiles, layout.cells, head_dim) for _ in range(2))
    tile_key, tile_value = (key.new_empty(groups, tiles, head_dim) for _ in range(2))
    key_variance = key.new_empty(2, groups, tiles, head_dim, dtype=torch.float32)
    value_deviation = key.new_empty(2, groups, tiles, dtype=torch.float32)
    for x, is_value, cell_mean, tile_mean, spread in (
        (key, False, cell_key, tile_key, key_variance),
        (value, True, cell_value, tile_value, value_deviation),
    ):
        _prepare_keys[tiles, groups](
            x, *x.stride()[:3],
            layout.order, layout.cell_of_place, layout.tile_start, layout.tile_count, layout.first_cell,
            layout.tile_cell_count, cell_mean, tile_mean, spread,
            video.heads, video.first, video.text_before,
            HEAD_DIM=head_dim, BLOCK_D=block_d(head_dim), PLACES=layout.places, CELLS=layout.cells,
            CELL_ROWS=max(layout.cells, 16), SUMS_CHANNELS=is_value,
        )  # fmt: skip
    return PreparedKeys(cell_key, cell_value, tile_key, tile_value, key_variance, value_deviation)


def prepare_queries(video: Video, layout: KernelLayout, chosen: QueryTiles) -> PreparedQueries:
    """Summaries of the queries of some tiles."""
    query, head_dim = video.query, video.head_dim
    cell_query = query.new_empty(video.groups, chosen.num_rows, head_dim)
    mean_square = query.new_empty(video.groups, len(chosen), head_dim, dtype=torch.float32)
    _prepare_queries[len(chosen), video.groups](
        query, *query.stride()[:3], video.skip,
        layout.order, layout.cell_of_place, layout.cell_count,
        chosen.start, chosen.count, chosen.first_cell, chosen.cells, chosen.first_row,
        cell_query, mean_square,
        video.heads, video.first, video.text_before, chosen.num_rows,
        HEAD_DIM=head_dim, BLOCK_D=block_d(head_dim), PLACES=layout.query_places, CELL_ROWS=layout.query_cells,
    )  # fmt: skip
    return PreparedQueries(cell_query, mean_square)


def block_d(head_dim: int) -> int:
    """Channels that a kernel works on; those past head_dim are masked."""
    return max(triton.next_power_of_2(head_dim), 16)


# The interpreter multiplies the bits of bfloat16 as if they were integers, and cuts float32 off where GPUs round it.
_INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)


@triton.jit
def dot(a, b):
    """A matrix product of one dtype, summed in float32; of float32 in three products of TF32, nearly as exact."""
    if _INTERPRETED:
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, input_precision="tf32x3")


@triton.jit
def rounded(x, dtype: tl.constexpr):
    """float32 in another dtype, to the nearest."""
    if _INTERPRETED and dtype == tl.bfloat16:
        bits = x.to(tl.int32, bitcast=True)
        bits += 0x7FFF + ((bits >> 16) & 1)
        x = bits.to(tl.float32, bitcast=True)
    return x.to(dtype)


@triton.jit
def head_at(x, stride_b, stride_h, first, heads):
    """Where this program's head begins; its place among those worked on is the second number of the program."""
    group = first + tl.program_id(1).to(tl.int64)
    return x + (group // heads) * stride_b + (group % heads) * stride_h


@triton.jit
def _load_run(
    x, stride_n, order, cell_of_place, start, count, first_cell, text_before, channel,
    HEAD_DIM: tl.constexpr, PLACES: tl.constexpr,
):  # fmt: skip
    """Tokens of a run of places ``[PLACES, BLOCK_D]``, 0 beyond its last, and each one's cell, -1 beyond."""
    place = tl.arange(0, PLACES)
    inside = place < count
    token = tl.load(order + start + place, mask=inside, other=0) + text_before
    cell = tl.load(cell_of_place + start + place, mask=inside, other=0) - first_cell
    mask = inside[:, None] & (channel < HEAD_DIM)[None, :]
    x_rows = tl.load(x + token.to(tl.int64)[:, None] * stride_n + channel[None, :], mask=mask, other=0.0)
    return x_rows, tl.where(inside, cell, -1)


@triton.jit
def _mean_of_cells(x, cell, cell_count, CELL_ROWS: tl.constexpr):
    """Means ``[CELL_ROWS, BLOCK_D]`` in float32 of the rows of each cell; 0 of an empty one."""
    member = cell[None, :] == tl.arange(0, CELL_ROWS)[:, None]
    total = dot(tl.where(member, 1.0, 0.0).to(x.dtype), x)
    return total / tl.maximum(cell_count, 1)[:, None]


@triton.jit(do_not_specialize=["first", "text_before"])
def _prepare_keys(
    x, stride_b, stride_n, stride_h,
    order, cell_of_place, tile_start, tile_count, first_cell, tile_cell_count, cell_mean, tile_mean, spread,
    heads, first, text_before,
    HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, PLACES: tl.constexpr, CELLS: tl.constexpr, CELL_ROWS: tl.constexpr,
    SUMS_CHANNELS: tl.constexpr,
):  # fmt: skip
    """One key tile of one head: means, and what is left within cells and within the tile."""
    tile, group = tl.program_id(0), tl.program_id(1).to(tl.int64)
    tiles, groups = tl.num_programs(0), tl.num_programs(1)
    channel = tl.arange(0, BLOCK_D)
    is_channel = channel < HEAD_DIM
    start, count = tl.load(tile_start + tile), tl.load(tile_count + tile)
    x = head_at(x, stride_b, stride_h, first, heads)
    rows, cell = _load_run(
        x, stride_n, order, cell_of_place, start, count, tl.load(first_cell + tile), text_before, channel,
        HEAD_DIM, PLACES,
    )  # fmt: skip
    number = tl.arange(0, CELL_ROWS)
    cell_count = tl.load(tile_cell_count + tile * CELLS + number, mask=number < CELLS, other=0)
    of_cells = _mean_of_cells(rows, cell, cell_count, CELL_ROWS)
    of_tile = tl.sum(of_cells * cell_count[:, None], 0) / count
    square = tl.sum(rows.to(tl.float32) * rows.to(tl.float32), 0) / count
    square_of_cells = tl.sum(of_cells * of_cells * cell_count[:, None], 0) / count
    in_cells = tl.maximum(square - square_of_cells, 0.0)
    in_tile = tl.maximum(square - of_tile * of_tile, 0.0)

    row = group * tiles + tile
    second = groups.to(tl.int64) * tiles + row
    cell_at = (row * CELLS + number)[:, None] * HEAD_DIM + channel[None, :]
    tl.store(cell_mean + cell_at, rounded(of_cells, rows.dtype), mask=(number < CELLS)[:, None] & is_channel[None, :])
    tl.store(tile_mean + row * HEAD_DIM + channel, rounded(of_tile, rows.dtype), mask=is_channel)
    if SUMS_CHANNELS:
        tl.store(spread + row, tl.sqrt(tl.sum(in_cells, 0)))
        tl.store(spread + second, tl.sqrt(tl.sum(in_tile, 0)))
    else:
        tl.store(spread + row * HEAD_DIM + channel, in_cells, mask=is_channel)
        tl.store(spread + second * HEAD_DIM + channel, in_tile, mask=is_channel)


@triton.jit(do_not_specialize=["first", "text_before", "num_rows"])
def _prepare_queries(
    query, stride_b, stride_n, stride_h, skip,
    order, cell_of_place, cell_count, query_start, query_count, first_cell, query_cells, first_row,
    cell_query, mean_square,
    heads, first, text_before, num_rows,
    HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, PLACES: tl.constexpr, CELL_ROWS: tl.constexpr,
):  # fmt: skip
    """One query tile of one head."""
    query_tile, group = tl.program_id(0), tl.program_id(1).to(tl.int64)
    if tl.load(skip + group) != 0:
        return
    channel = tl.arange(0, BLOCK_D)
    is_channel = channel < HEAD_DIM
    start, count = tl.load(query_start + query_tile), tl.load(query_count + query_tile)
    cell_start = tl.load(first_cell + query_tile)
    query = head_at(query, stride_b, stride_h, first, heads)
    rows, cell = _load_run(
        query, stride_n, order, cell_of_place, start, count, cell_start, text_before, channel, HEAD_DIM, PLACES
    )
    number = tl.arange(0, CELL_ROWS)
    inside = number < tl.load(query_cells + query_tile)
    counts = tl.load(cell_count + cell_start + number, mask=inside, other=0)
    of_cells = _mean_of_cells(rows, cell, counts, CELL_ROWS)
    row = group * num_rows + tl.load(first_row + query_tile) + number
    tl.store(
        cell_query + row[:, None] * HEAD_DIM + channel[None, :],
        rounded(of_cells, rows.dtype),
        mask=inside[:, None] & is_channel[None, :],
    )
    square = tl.sum(rows.to(tl.float32) * rows.to(tl.float32), 0) / count
    at = (group * tl.num_programs(0) + query_tile) * HEAD_DIM + channel
    tl.store(mean_square + at, square, mask=is_channel)
