"""Mode `ripple`, second half: attention over lists of keys, and the whole mode put together.

Each query tile attends to a list of keys: the tokens of key tiles that it takes exactly, means of cells or of whole
tiles of the others with the log of their counts as a bias, and all text. Lists of similar length are gathered and
handed to torch's fused attention together.

Shapes: B batch, N query tokens, M key tokens, H heads, D head_dim; P places (video tokens in tile order); L text
keys; T key tiles; Q query tiles; R rows of a head's table: tokens, means of cells, means of tiles, text.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ripple_core.attention.decide import WORTH_IT, KeySummary, decide, keys_taken, summarise_keys, summarise_queries
from ripple_core.attention.grid import LatentGrid
from ripple_core.attention.savings import Executed
from ripple_core.attention.tiles import TileLayout, tile_layout

# Keys gathered at a time, and at most as many queries: few enough to stay in a CPU's last cache, enough to keep its
# cores busy.
_GATHERED = 4096
# Tiles side by side that make one query tile, from so many tokens on. torch's fused CPU kernel works on 64 rows at a
# time from 192 queries on and on 32 below, which takes a third longer; few tokens want the finer choice all the same.
_QUERY_TILES = ((8192, 4), (4096, 2), (0, 1))


@torch.no_grad()
def ripple_attention(
    query_BNHD: Tensor,
    key_BMHD: Tensor,
    value_BMHD: Tensor,
    grid: LatentGrid,
    budget: float,
    scale: float | None = None,
    text_before: int = 0,
) -> tuple[Tensor, Executed]:
    """Attention with every pair of tiles computed as exactly as the error budget asks.

    Args:
        query_BNHD: ``[batch, tokens, heads, head_dim]``, after RoPE, video tokens in grid order.
        key_BMHD: as many heads; its tokens are the query's, or fewer where padded text is cropped from the end.
        value_BMHD: as the key.
        grid: of the video's tokens.
        budget: relative error of the output that may be spent, at least 0.
        scale: of the scores; 1 / sqrt(head_dim) by default.
        text_before: tokens before the video's; those after it are text, too.

    Returns:
        The output ``[batch, tokens, heads, head_dim]``, and what ran. A head that saves too little to be worth it,
        or that holds a NaN or an infinity, runs dense and is counted. No gradient flows through.
    """
    scale = query_BNHD.shape[-1] ** -0.5 if scale is None else scale
    layout = tile_layout(grid, _tiles_per_query_tile(grid), query_BNHD.device)
    out_BNHD = torch.empty_like(query_BNHD)
    token_of_place = layout.order + text_before
    # Used again by every head and group of lists: asking the system for them anew takes longer than the products.
    num_keys, row = key_BMHD.shape[1], 2 * key_BMHD.shape[3]
    rows = key_BMHD.new_empty(num_keys + len(layout.cells) + len(layout.tiles), row)
    scratch = key_BMHD.new_empty(max(_GATHERED, num_keys), row)
    ran = [
        _attend_head(_Head(q, k, v, scale), out, token_of_place, layout, budget, rows, scratch)
        for item in zip(query_BNHD, key_BMHD, value_BMHD, out_BNHD, strict=True)
        for q, k, v, out in zip(*(x.unbind(1) for x in item), strict=True)
    ]
    shares_BH2 = torch.tensor([(head.scores, head.values) for head in ran], dtype=torch.float64)
    batch, heads = len(query_BNHD), query_BNHD.shape[2]
    scores_BH, values_BH = shares_BH2.view(batch, heads, 2).unbind(-1)
    dense_heads_B = [
        Counter(head.dense_because for head in ran[item * heads : (item + 1) * heads] if head.dense_because)
        for item in range(batch)
    ]
    return out_BNHD, Executed(scores_BH, values_BH, dense_heads_B)


def _tiles_per_query_tile(grid: LatentGrid) -> int:
    """Large query tiles waste less time on gathering; small ones fit the picture better."""
    return next(tiles for tokens, tiles in _QUERY_TILES if grid.num_tokens >= tokens)


@dataclass(frozen=True)
class _Head:
    """One head of one batch item: query ``[N, D]``, key and value ``[M, D]``."""

    query: Tensor
    key: Tensor
    value: Tensor
    scale: float

    def dense(self, query_XD: Tensor) -> Tensor:
        """Exact attention of some queries."""
        q, k, v = (x[None, None] for x in (query_XD, self.key, self.value))
        return F.scaled_dot_product_attention(q, k, v, scale=self.scale)[0, 0]


@dataclass(frozen=True)
class _Ran:
    """Executed shares of QK^T, deciding included, and of PV; why the head ran dense, if it did."""

    scores: float
    values: float
    dense_because: str | None = None


def _attend_head(
    head: _Head,
    out_ND: Tensor,
    token_of_place: Tensor,
    layout: TileLayout,
    budget: float,
    rows: Tensor,
    scratch: Tensor,
) -> _Ran:
    """Write the output of one head; rows and scratch are room for the table and for what is gathered from it."""
    table = _Table.of(head, token_of_place, layout, rows)
    query_PD = scratch.view(-1)[: len(token_of_place) * head.query.shape[1]].view(-1, head.query.shape[1])
    torch.index_select(head.query, 0, token_of_place, out=query_PD)
    queries = summarise_queries(query_PD, layout)
    decision = decide(queries, table.text_keys, table.keys, layout, head.scale, budget)
    length_Q = keys_taken(layout).gather(0, decision.treatment).sum(1) + table.num_text
    text_queries = len(head.query) - len(token_of_place)
    pairs = int((length_Q * layout.query_tiles.count).sum()) + text_queries * len(head.key)
    dense_pairs = len(head.query) * len(head.key)
    deciding = decision.flops / (2 * dense_pairs * head.query.shape[1])
    finite = bool(decision.error.isfinite().all())
    if pairs > WORTH_IT * dense_pairs or not finite:
        out_ND.copy_(head.dense(head.query))
        return _Ran(1 + deciding, 1.0, "little_to_save" if finite else "not_finite")
    for tiles, row_GX, bias_GX in _lists(decision.treatment, length_Q, layout, table):
        tokens = token_of_place[layout.query_tiles.places[tiles]]
        out_ND[tokens] = table.attend(head.query[tokens], row_GX, bias_GX, head.scale, scratch)
    if text_queries:
        text = _text_tokens(len(head.query), token_of_place)
        out_ND[text] = head.dense(head.query[text])
    return _Ran(pairs / dense_pairs + deciding, pairs / dense_pairs)


def _text_tokens(num_tokens: int, token_of_place: Tensor) -> Tensor:
    """Tokens that are not the video's."""
    is_text = torch.ones(num_tokens, dtype=torch.bool, device=token_of_place.device)
    return is_text.index_fill(0, token_of_place, False).nonzero()[:, 0]


@dataclass(frozen=True)
class _Table:
    """Every key that a list of one head may name: tokens in tile order, means of cells, means of tiles, text.

    Attributes:
        rows: key and value beside each other ``[R, 2 D]``.
        log_count: of the tokens that each stands for ``[R]``.
        keys: what the means were made of.
        num_text: text keys, the last rows.
    """

    rows: Tensor
    log_count: Tensor
    keys: KeySummary
    num_text: int

    @classmethod
    def of(cls, head: _Head, token_of_place: Tensor, layout: TileLayout, rows: Tensor) -> "_Table":
        places, cells, tiles = len(layout.order), len(layout.cells), len(layout.tiles)
        num_text = len(head.key) - places
        means = places + cells + tiles
        key_RD, value_RD = rows.chunk(2, dim=1)
        for x_RD, x_MD in ((key_RD, head.key), (value_RD, head.value)):
            torch.index_select(x_MD, 0, token_of_place, out=x_RD[:places])
            if num_text:
                x_RD[means:] = x_MD[_text_tokens(len(x_MD), token_of_place)]
        keys = summarise_keys(key_RD[:places], value_RD[:places], layout)
        rows[places : places + cells] = torch.cat([keys.cell_key, keys.cell_value], dim=1)
        rows[places + cells : means] = torch.cat([keys.tile_key, keys.tile_value], dim=1)
        count = torch.ones(len(rows), device=rows.device)
        count[places:means] = torch.cat([layout.cells.count, layout.tiles.count]).to(count.dtype)
        return cls(rows, count.log().to(rows.dtype), keys, num_text)

    @property
    def text_keys(self) -> Tensor:
        """``[L, D]``."""
        return self.rows[len(self.rows) - self.num_text :, : self.rows.shape[1] // 2]

    def attend(self, query_GSD: Tensor, row_GX: Tensor, bias_GX: Tensor, scale: float, scratch: Tensor) -> Tensor:
        """Attention of G query tiles of S places, each to its own list of X keys ``[G, S, D]``."""
        gathered = scratch[: row_GX.numel()]
        torch.index_select(self.rows, 0, row_GX.flatten(), out=gathered)
        key_GXD, value_GXD = gathered.view(*row_GX.shape, -1).chunk(2, dim=-1)
        mask = bias_GX[:, None, None].expand(-1, 1, query_GSD.shape[1], -1)
        q, k, v = (x[:, None] for x in (query_GSD, key_GXD, value_GXD))
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)[:, 0]


def _lists(
    treatment_QT: Tensor, length_Q: Tensor, layout: TileLayout, table: _Table
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Groups of G query tiles with similar lengths: their numbers ``[G]``, rows and biases ``[G, X]``.

    Lists shorter than their group's longest are filled up with a bias of -inf.
    """
    order_Q = length_Q.argsort(descending=True)
    row = _rows(treatment_QT[order_Q], layout, table)
    lengths, first_Q = length_Q[order_Q], length_Q[order_Q].cumsum(0) - length_Q[order_Q]
    longest = lengths.tolist()
    start, most = 0, max(1, _GATHERED // layout.query_tiles.places.shape[1])
    while start < len(longest):
        size = min(max(1, _GATHERED // longest[start]), most)
        group = slice(start, start + size)
        offset = torch.arange(longest[start], device=row.device)
        filled = offset >= lengths[group, None]
        row_GX = row[(first_Q[group, None] + offset).clamp(max=len(row) - 1)]
        yield order_Q[group], row_GX, table.log_count[row_GX].masked_fill(filled, -torch.inf)
        start += size


def _rows(treatment_QT: Tensor, layout: TileLayout, table: _Table) -> Tensor:
    """The lists of all query tiles, one after the other: rows of the table."""
    places, cells = len(layout.order), len(layout.cells)
    tiles = torch.arange(len(layout.tiles), device=treatment_QT.device)
    first_3T = torch.stack([layout.tiles.start, places + layout.cells_of_tile.start, places + cells + tiles])
    first_QT, count_QT = (x.gather(0, treatment_QT) for x in (first_3T, keys_taken(layout)))
    text = places + cells + len(tiles)
    first = F.pad(first_QT, (0, 1), value=text).flatten()
    count = F.pad(count_QT, (0, 1), value=table.num_text).flatten()
    shift = (first - (count.cumsum(0) - count)).int()
    total = int(count.sum())
    row = torch.repeat_interleave(shift, count, output_size=total)
    return row.add_(torch.arange(total, dtype=torch.int32, device=row.device))
