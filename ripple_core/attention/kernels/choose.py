"""Second pass, second part: the treatment of every pair of tiles, and the lists that follow from it.

What it computes is `decide` of `decide.py`. Shapes as in `prepare.py`; U units of 16 places.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from ripple_core.attention.decide import OUTLIER
from ripple_core.attention.kernels.layout import UNIT, KernelLayout
from ripple_core.attention.kernels.mass import Mass
from ripple_core.attention.kernels.prepare import PreparedKeys, PreparedQueries, Video, block_d, dot

_QUERY_TILES_AT_ONCE = 16
_TILES_AT_ONCE = 32
_LISTED_AT_ONCE = 256


@dataclass(frozen=True)
class Choice:
    """What `Decision` is to the PyTorch path.

    Attributes:
        treatment: 0 exact, 1 cells, 2 the tile as one key ``[G, Q, T]``, int8.
        num_units: of the tiles that are exact ``[G, Q]``, int32, as the next three.
        num_cells, num_single: tiles taken by their cells, and as one key ``[G, Q]``.
        keys: that the query tile attends to, without text ``[G, Q]``.
        squared_error: estimated, relative to the head's mean square output ``[G, Q]``, float32.
    """

    treatment: Tensor
    num_units: Tensor
    num_cells: Tensor
    num_single: Tensor
    keys: Tensor
    squared_error: Tensor


@dataclass(frozen=True)
class Lists:
    """What each query tile attends to.

    Attributes:
        units: of exact tiles; the first `num_units` count ``[G, Q, U]``.
        tiles: first those taken by their cells, then those taken as one key ``[G, Q, T]``.
    """

    units: Tensor
    tiles: Tensor


def choose(
    video: Video,
    mass: Mass,
    keys: PreparedKeys,
    queries: PreparedQueries,
    layout: KernelLayout,
    scale: float,
    budget: float,
) -> Choice:
    """The cheapest treatment that is worth its error, for every pair of some query tiles and all key tiles."""
    groups, query_tiles, tiles = mass.root_mean_square.shape
    head_dim = video.head_dim
    smallest = torch.finfo(torch.float32).tiny
    size = mass.output.square().sum(-1).mean(-1).sqrt().clamp(min=smallest)
    in_cells = keys.key_variance[0].sum(-1)
    outlier = (in_cells > OUTLIER * in_cells.median(-1, keepdim=True).values).to(torch.int8)
    treatment = torch.empty_like(mass.root_mean_square, dtype=torch.int8)
    num_units, num_cells, num_single, length = (size.new_empty(groups, query_tiles, dtype=torch.int32) for _ in "1234")
    squared_error = size.new_empty(groups, query_tiles)
    _choose[triton.cdiv(query_tiles, _QUERY_TILES_AT_ONCE), groups](
        video.skip, mass.root_mean_square, queries.mean_square, mass.output, size,
        keys.key_variance, keys.value_deviation, keys.tile_value, outlier,
        layout.tile_count, layout.cells_of_tile, layout.units_of_tile,
        treatment, num_units, num_cells, num_single, length, squared_error,
        scale * scale, budget * budget / video.key.shape[1], tiles, query_tiles,
        HEAD_DIM=head_dim, BLOCK_D=block_d(head_dim), QUERY_TILES=_QUERY_TILES_AT_ONCE, AT_ONCE=_TILES_AT_ONCE,
        num_stages=2,
    )  # fmt: skip
    return Choice(treatment, num_units, num_cells, num_single, length, squared_error)


def make_lists(video: Video, choice: Choice, layout: KernelLayout) -> Lists:
    """Lists in the order of tiles; numbers in 16 bits where they fit."""
    groups, query_tiles, tiles = choice.treatment.shape
    num_units = len(layout.unit_token)
    dtype = torch.int16 if num_units <= torch.iinfo(torch.int16).max else torch.int32
    units = choice.treatment.new_empty(groups, query_tiles, num_units, dtype=dtype)
    listed = choice.treatment.new_empty(groups, query_tiles, tiles, dtype=dtype)
    _list[query_tiles, groups](
        video.skip, choice.treatment, choice.num_cells, layout.first_unit, layout.units_of_tile,
        units, listed, tiles, num_units,
        MOST_UNITS=layout.places // UNIT, AT_ONCE=_LISTED_AT_ONCE,
    )  # fmt: skip
    return Lists(units, listed)


@triton.jit
def _choose(  # noqa: PLR0915 - one kernel, one pass
    skip, mass, mean_square, output, size, key_variance, value_deviation, tile_value, outlier,
    tile_count, cells_of_tile, units_of_tile,
    treatment, num_units, num_cells, num_single, length, squared_error,
    scale_squared, price, tiles, query_tiles,
    HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, QUERY_TILES: tl.constexpr, AT_ONCE: tl.constexpr,
):  # fmt: skip
    """The treatment with the smallest squared error plus price of its keys, for some query tiles and all key tiles."""
    group, groups = tl.program_id(1).to(tl.int64), tl.num_programs(1)
    if tl.load(skip + group) != 0:
        return
    query_tile = tl.program_id(0) * QUERY_TILES + tl.arange(0, QUERY_TILES)
    is_query = query_tile < query_tiles
    channel = tl.arange(0, BLOCK_D)
    is_channel = (channel < HEAD_DIM)[None, :]
    query_row = group * query_tiles + query_tile
    query_at = query_row[:, None] * HEAD_DIM + channel[None, :]
    square = tl.load(mean_square + query_at, mask=is_query[:, None] & is_channel, other=0.0) * scale_squared
    out = tl.load(output + query_at, mask=is_query[:, None] & is_channel, other=0.0)
    out_square = tl.sum(out * out, 1)
    head_size = tl.load(size + group)
    second = groups.to(tl.int64) * tiles
    units = tl.zeros([QUERY_TILES], tl.int32)
    by_cells = tl.zeros([QUERY_TILES], tl.int32)
    single = tl.zeros([QUERY_TILES], tl.int32)
    keys = tl.zeros([QUERY_TILES], tl.int32)
    error_sum = tl.zeros([QUERY_TILES], tl.float32)
    for first in range(0, tiles, AT_ONCE):
        tile = first + tl.arange(0, AT_ONCE)
        is_tile = tile < tiles
        row = group * tiles + tile
        both = is_query[:, None] & is_tile[None, :]
        pair = query_row[:, None] * tiles + tile[None, :]
        m = tl.load(mass + pair, mask=both, other=0.0) / head_size
        at = row[:, None] * HEAD_DIM + channel[None, :]
        v = tl.load(tile_value + at, mask=is_tile[:, None] & is_channel, other=0.0).to(tl.float32)
        distance = out_square[:, None] + tl.sum(v * v, 1)[None, :] - 2 * dot(out, tl.trans(v))
        distance = tl.sqrt(tl.maximum(distance, 0.0))
        of_cells = _squared_error(m, square, distance, key_variance, value_deviation, row, is_tile, channel, HEAD_DIM)
        of_tile = _squared_error(
            m, square, distance, key_variance, value_deviation, second + row, is_tile, channel, HEAD_DIM
        )
        places = tl.load(tile_count + tile, mask=is_tile, other=0)[None, :]
        cells = tl.load(cells_of_tile + tile, mask=is_tile, other=0)[None, :]
        is_outlier = tl.load(outlier + row, mask=is_tile, other=0)[None, :] > 0
        cost_exact = price * places.to(tl.float32)
        cost_cells = tl.where(is_outlier, float("inf"), of_cells + price * cells.to(tl.float32))
        cost_tile = tl.where(is_outlier, float("inf"), of_tile + price)
        # Of equals the more exact one, as argmin does; a NaN is in no comparison and stays exact.
        choice = tl.where(cost_cells < cost_exact, 1, 0)
        choice = tl.where(cost_tile < tl.where(choice == 1, cost_cells, cost_exact), 2, choice)
        tl.store(treatment + pair, choice.to(tl.int8), mask=both)
        is_exact = both & (choice == 0)
        tile_units = tl.load(units_of_tile + tile, mask=is_tile, other=0)[None, :]
        units += tl.sum(tl.where(is_exact, tile_units, 0), 1)
        by_cells += tl.sum((both & (choice == 1)).to(tl.int32), 1)
        single += tl.sum((both & (choice == 2)).to(tl.int32), 1)
        taken = tl.where(choice == 0, places, tl.where(choice == 1, cells, 1))
        keys += tl.sum(tl.where(both, taken, 0), 1)
        # m is not finite where the input is not, and then the sum is not.
        error = tl.where(choice == 0, 0.0 * m, tl.where(choice == 1, of_cells, of_tile))
        error_sum += tl.sum(tl.where(both, error, 0.0), 1)
    tl.store(num_units + query_row, units, mask=is_query)
    tl.store(num_cells + query_row, by_cells, mask=is_query)
    tl.store(num_single + query_row, single, mask=is_query)
    tl.store(length + query_row, keys, mask=is_query)
    tl.store(squared_error + query_row, error_sum, mask=is_query)


@triton.jit
def _squared_error(
    mass, square, distance, key_variance, value_deviation, row, is_tile, channel, HEAD_DIM: tl.constexpr
):
    """Of one treatment, for some query tiles and key tiles (METHOD.md, "What it does to the output")."""
    mask = is_tile[:, None] & (channel < HEAD_DIM)[None, :]
    variance = tl.load(key_variance + row[:, None] * HEAD_DIM + channel[None, :], mask=mask, other=0.0)
    score_variance = dot(square, tl.trans(variance))
    deviation = tl.load(value_deviation + row, mask=is_tile, other=0.0)[None, :]
    error = mass * (0.5 * score_variance * distance + tl.sqrt(score_variance) * deviation)
    return error * error


@triton.jit
def _list(
    skip, treatment, num_cells, first_unit, units_of_tile, units, listed, tiles, num_units,
    MOST_UNITS: tl.constexpr, AT_ONCE: tl.constexpr,
):  # fmt: skip
    """The lists of one query tile of one head, by counting on."""
    if tl.load(skip + tl.program_id(1)) != 0:
        return
    query_row = tl.program_id(1).to(tl.int64) * tl.num_programs(0) + tl.program_id(0)
    units += query_row * num_units
    by_cells = listed + query_row * tiles
    single = by_cells + tl.load(num_cells + query_row)
    for first in range(0, tiles, AT_ONCE):
        tile = first + tl.arange(0, AT_ONCE)
        inside = tile < tiles
        choice = tl.load(treatment + query_row * tiles + tile, mask=inside, other=3)
        unit = tl.load(first_unit + tile, mask=inside, other=0)
        count = tl.where(choice == 0, tl.load(units_of_tile + tile, mask=inside, other=0), 0)
        at = units + tl.cumsum(count, 0) - count
        for i in tl.static_range(MOST_UNITS):
            tl.store(at + i, unit + i, mask=i < count)
        units += tl.sum(count, 0)
        is_cells = (choice == 1).to(tl.int32)
        tl.store(by_cells + tl.cumsum(is_cells, 0) - 1, tile, mask=is_cells > 0)
        by_cells += tl.sum(is_cells, 0)
        is_single = (choice == 2).to(tl.int32)
        tl.store(single + tl.cumsum(is_single, 0) - 1, tile, mask=is_single > 0)
        single += tl.sum(is_single, 0)
