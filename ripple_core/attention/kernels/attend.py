"""Third pass: attention over the lists, all treatments and the text in one running softmax; forward only.

What it computes is `reference_attention` of `reference.py`. Shapes as in `prepare.py`.
"""

import math

import triton
import triton.language as tl
from torch import Tensor

from ripple_core.attention.kernels.choose import Choice, Lists
from ripple_core.attention.kernels.config import KernelConfig
from ripple_core.attention.kernels.layout import UNIT, KernelLayout
from ripple_core.attention.kernels.prepare import PreparedKeys, Video, block_d, dot, head_at, rounded


def attend(
    video: Video,
    keys: PreparedKeys,
    choice: Choice,
    lists: Lists,
    layout: KernelLayout,
    config: KernelConfig,
    scale: float,
    out: Tensor,
    log_sum_exp: Tensor | None = None,
) -> None:
    """Write the video's rows of the output of heads that are not skipped.

    Args:
        out: ``[B, N, H, D]``.
        log_sum_exp: of the scores ``[B, H, N]``, natural, float32; written where it is given.
    """
    query, key, value = video.query, video.key, video.value
    num_video, query_tiles = len(layout.order), len(layout.queries)
    _attend[query_tiles, video.groups](
        query, key, value, out, log_sum_exp, video.skip,
        *query.stride()[:3], *key.stride()[:3], *value.stride()[:3], *out.stride()[:3],
        keys.cell_key, keys.cell_value, keys.tile_key, keys.tile_value,
        layout.order, layout.unit_token, layout.tile_count, layout.tile_cell_count,
        layout.queries.start, layout.queries.count,
        lists.units, lists.tiles, choice.num_units, choice.num_cells, choice.num_single,
        scale * math.log2(math.e), video.heads, video.first, query.shape[1], len(layout.tile_start),
        len(layout.unit_token), video.text_before, key.shape[1] - num_video, num_video,
        HEAD_DIM=video.head_dim, BLOCK_D=block_d(video.head_dim), QUERY_PLACES=layout.query_places,
        CELLS=layout.cells, AT_ONCE=max(config.keys_at_once, layout.cells), UNIT=UNIT,
        WRITES_LSE=log_sum_exp is not None,
        num_warps=config.num_warps, num_stages=config.num_stages,
    )  # fmt: skip


@triton.jit
def _fold(
    q, key, value, key_row, value_row, bias, is_key, channel, log2_scale, m, z, acc, HEAD_DIM: tl.constexpr
):  # fmt: skip
    """One block of keys, given by where their rows begin, into the running softmax: maximum m, sum z, values acc."""
    mask = is_key[:, None] & (channel < HEAD_DIM)[None, :]
    k = tl.load(key + key_row[:, None] + channel[None, :], mask=mask, other=0.0)
    v = tl.load(value + value_row[:, None] + channel[None, :], mask=mask, other=0.0)
    score = dot(q, tl.trans(k)) * log2_scale + tl.where(is_key, bias, -float("inf"))[None, :]
    m_new = tl.maximum(m, tl.max(score, 1))
    rescale = tl.exp2(m - m_new)
    p = tl.exp2(score - m_new[:, None])
    acc = acc * rescale[:, None] + dot(rounded(p, v.dtype), v)
    return m_new, z * rescale + tl.sum(p, 1), acc


@triton.jit
def _listed(numbers, n, count):
    """Items of a list, -1 beyond its end."""
    return tl.load(numbers + n, mask=n < count, other=-1).to(tl.int32)


@triton.jit
def _tokens(unit_token, unit, number, UNIT: tl.constexpr):
    """Tokens of units, -1 where there is none."""
    return tl.load(unit_token + unit * UNIT + number % UNIT, mask=unit >= 0, other=-1)


@triton.jit
def _log2_count(count):
    return tl.log2(tl.maximum(count, 1).to(tl.float32))


@triton.jit(do_not_specialize=["first_head", "num_queries", "text_before", "text"])
def _attend(  # noqa: PLR0915 - one kernel, four loops
    query, key, value, out, log_sum_exp, skip,
    query_b, query_n, query_h, key_b, key_n, key_h, value_b, value_n, value_h, out_b, out_n, out_h,
    cell_key, cell_value, tile_key, tile_value,
    order, unit_token, tile_count, tile_cell_count, query_start, query_count,
    units, listed, num_units, num_cells, num_single,
    log2_scale, heads, first_head, num_queries, tiles, most_units, text_before, text, num_video,
    HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, QUERY_PLACES: tl.constexpr, CELLS: tl.constexpr,
    AT_ONCE: tl.constexpr, UNIT: tl.constexpr, WRITES_LSE: tl.constexpr,
):  # fmt: skip
    """One query tile of one head: its list, in blocks of AT_ONCE keys, of which each holds at least one."""
    query_tile, group = tl.program_id(0), tl.program_id(1).to(tl.int64)
    if tl.load(skip + group) != 0:
        return
    query = head_at(query, query_b, query_h, first_head, heads)
    key = head_at(key, key_b, key_h, first_head, heads)
    value = head_at(value, value_b, value_h, first_head, heads)
    out = head_at(out, out_b, out_h, first_head, heads)
    channel = tl.arange(0, BLOCK_D)
    place = tl.arange(0, QUERY_PLACES)
    is_query = place < tl.load(query_count + query_tile)
    token = tl.load(order + tl.load(query_start + query_tile) + place, mask=is_query, other=0) + text_before
    mask = is_query[:, None] & (channel < HEAD_DIM)[None, :]
    q = tl.load(query + token.to(tl.int64)[:, None] * query_n + channel[None, :], mask=mask, other=0.0)
    m = tl.full([QUERY_PLACES], -float("inf"), tl.float32)
    z = tl.zeros([QUERY_PLACES], tl.float32)
    acc = tl.zeros([QUERY_PLACES, BLOCK_D], tl.float32)
    number = tl.arange(0, AT_ONCE)
    no_bias = tl.zeros([AT_ONCE], tl.float32)
    row = group * tl.num_programs(0) + query_tile

    for first in range(0, text, AT_ONCE):
        n = first + number
        at = tl.where(n < text_before, n, n + num_video).to(tl.int64)
        m, z, acc = _fold(
            q, key, value, at * key_n, at * value_n, no_bias, n < text, channel, log2_scale, m, z, acc, HEAD_DIM
        )

    # What a list names next is loaded a block or two ahead, so that copies of keys and values wait for no other load.
    count = tl.load(num_units + row)
    units += row * most_units
    step = AT_ONCE // UNIT
    unit = _listed(units, number // UNIT, count)
    key_token = _tokens(unit_token, unit, number, UNIT)
    unit = _listed(units, step + number // UNIT, count)
    for first in range(0, count, step):
        next_unit = _listed(units, first + 2 * step + number // UNIT, count)
        next_token = _tokens(unit_token, unit, number, UNIT)
        at = (key_token + text_before).to(tl.int64)
        m, z, acc = _fold(
            q, key, value, at * key_n, at * value_n, no_bias, key_token >= 0, channel, log2_scale, m, z, acc, HEAD_DIM
        )
        unit, key_token = next_unit, next_token

    count = tl.load(num_cells + row)
    listed += row * tiles
    step = AT_ONCE // CELLS
    tile = _listed(listed, number // CELLS, count)
    for first in range(0, count, step):
        next_tile = _listed(listed, first + step + number // CELLS, count)
        cell = tl.maximum(tile, 0) * CELLS + number % CELLS
        places = tl.load(tile_cell_count + cell)
        bias = tl.where(places > 0, _log2_count(places), -float("inf"))
        at = (group * tiles * CELLS + cell) * HEAD_DIM
        m, z, acc = _fold(q, cell_key, cell_value, at, at, bias, tile >= 0, channel, log2_scale, m, z, acc, HEAD_DIM)
        tile = next_tile

    listed += count
    count = tl.load(num_single + row)
    tile = _listed(listed, number, count)
    for first in range(0, count, AT_ONCE):
        next_tile = _listed(listed, first + AT_ONCE + number, count)
        places = tl.load(tile_count + tl.maximum(tile, 0))
        at = (group * tiles + tl.maximum(tile, 0)) * HEAD_DIM
        m, z, acc = _fold(
            q, tile_key, tile_value, at, at, _log2_count(places), tile >= 0, channel, log2_scale, m, z, acc, HEAD_DIM
        )
        tile = next_tile

    at = token.to(tl.int64)[:, None] * out_n + channel[None, :]
    tl.store(out + at, rounded(acc / z[:, None], q.dtype), mask=mask)
    if WRITES_LSE:
        head = first_head + group
        tl.store(log_sum_exp + head * num_queries + token, (m + tl.log2(z)) * 0.6931471805599453, mask=is_query)
