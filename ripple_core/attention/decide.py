"""Mode `ripple`, first half: how each (query tile, key tile) pair of one head is treated.

A pair is computed exactly; or its key cells stand for their tokens (one key and value each, their means, with the log
of the count added to the score); or the whole key tile is one such key. What that does to the output is estimated
from means and variances, and the cheapest treatment is taken that is worth its error. METHOD.md derives the estimate.

Shapes: D head_dim; P places (video tokens in tile order); L text keys; C cells; T key tiles; Q query tiles.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ripple_core.attention.tiles import Runs, TileLayout

# A tile whose keys vary within cells this many times more than the head's median tile holds an outlier, which drags
# the means along that the estimate rests on.
OUTLIER = 100.0
# A list takes more time a key than dense attention does, so a head above this share of the pairs runs dense.
WORTH_IT = 0.75
# Query cells whose scores against all cells are in memory at once.
_CHUNK = 128


@dataclass(frozen=True)
class KeySummary:
    """Means and variances of the keys and values of one head.

    Attributes:
        cell_key, cell_value: ``[C, D]``.
        tile_key, tile_value: ``[T, D]``.
        key_variance: in-cell and in-tile variance of the keys by channel, averaged over each tile ``[2, T, D]``.
        value_deviation: the same of the values, root of the sum over channels ``[2, T]``.
    """

    cell_key: Tensor
    cell_value: Tensor
    tile_key: Tensor
    tile_value: Tensor
    key_variance: Tensor
    value_deviation: Tensor


@dataclass(frozen=True)
class QuerySummary:
    """What deciding needs of the video queries of one head.

    Attributes:
        cell_mean: ``[C, D]``.
        mean_square: by channel, of each query tile ``[Q, D]``.
    """

    cell_mean: Tensor
    mean_square: Tensor


@dataclass(frozen=True)
class Decision:
    """What to do with every pair.

    Attributes:
        treatment: 0 exact, 1 cells, 2 the tile as one key ``[Q, T]``.
        error: estimated error of the output, relative to the head's root mean square output ``[Q]``.
        flops: taken to decide, means included.
    """

    treatment: Tensor
    error: Tensor
    flops: int


def summarise_queries(query_PD: Tensor, layout: TileLayout) -> QuerySummary:
    """Means of queries in tile order, and of their squares."""
    query_PD = query_PD.float()
    return QuerySummary(layout.cells.mean(query_PD), layout.query_tiles.mean_square(query_PD))


def summarise_keys(key_PD: Tensor, value_PD: Tensor, layout: TileLayout) -> KeySummary:
    """Means and variances; float32 whatever the input is."""
    key_PD, value_PD = key_PD.float(), value_PD.float()
    cell_key, cell_value = layout.cells.mean(key_PD), layout.cells.mean(value_PD)
    tile_key, tile_value = (_mean_of_cells(x, layout.cells_of_tile, layout) for x in (cell_key, cell_value))
    key_variance, value_variance = (
        _variances(*means, layout) for means in ((key_PD, cell_key, tile_key), (value_PD, cell_value, tile_value))
    )
    return KeySummary(cell_key, cell_value, tile_key, tile_value, key_variance, value_variance.sum(-1).sqrt())


def _variances(x_PD: Tensor, cell_CD: Tensor, tile_TD: Tensor, layout: TileLayout) -> Tensor:
    """Within cells, and within the tile, averaged over each tile ``[2, T, D]``."""
    square_TD = layout.tiles.mean_square(x_PD)
    of_cells_TD = _mean_of_cells(cell_CD.square(), layout.cells_of_tile, layout)
    return (square_TD - torch.stack([of_cells_TD, tile_TD.square()])).clamp(min=0)


def decide(
    queries: QuerySummary, text_key_LD: Tensor, keys: KeySummary, layout: TileLayout, scale: float, budget: float
) -> Decision:
    """Choose a treatment for every pair of one head.

    A pair's squared error may be `budget`^2 times the share of dense work that it saves, so the estimated relative
    error of a query tile's output stays below budget * sqrt(saved share).

    Args:
        queries: of the video.
        text_key_LD: keys that are always exact; they take their share of the attention mass.
        keys: of the video.
        layout: of the grid.
        scale: of the scores.
        budget: relative error of the output, at least 0; 0 leaves everything exact.
    """
    mean_QT, mean_square_QT = _mass(queries.cell_mean, text_key_LD.float(), keys, layout, scale)
    error_2QT, output_QD = _errors(queries.mean_square, mean_QT, mean_square_QT, keys, scale)
    output_size = output_QD.square().sum(1).mean().sqrt().clamp(min=torch.finfo(torch.float32).tiny)
    error_2QT = (error_2QT / output_size).masked_fill(_holds_outlier(keys), torch.inf)
    error_3QT = torch.cat([torch.zeros_like(error_2QT[:1]), error_2QT])
    price_3T = budget**2 * keys_taken(layout) / (len(layout.order) + len(text_key_LD))
    treatment_QT = (error_3QT.square() + price_3T[:, None]).argmin(0)
    chosen_QT = error_3QT.gather(0, treatment_QT[None])[0]
    return Decision(treatment_QT, chosen_QT.square().sum(1).sqrt(), _flops(text_key_LD, layout))


def keys_taken(layout: TileLayout) -> Tensor:
    """Keys that each treatment takes of each key tile ``[3, T]``."""
    return torch.stack([layout.tiles.count, layout.cells_of_tile.count, torch.ones_like(layout.tiles.count)])


def _mass(
    query_CD: Tensor, text_key_LD: Tensor, keys: KeySummary, layout: TileLayout, scale: float
) -> tuple[Tensor, Tensor]:
    """Attention mass of each key tile, and its square, averaged over the cells of a query tile ``[Q, T]``."""
    key_XD = torch.cat([keys.cell_key, text_key_LD])
    log_count_X = torch.cat([layout.cells.count.log(), text_key_LD.new_zeros(len(text_key_LD))])
    cells = len(keys.cell_key)
    tile_of_cell = torch.repeat_interleave(layout.cells_of_tile.count)
    by_tile = layout.cells_of_tile.places.shape
    mass_CT = query_CD.new_zeros(cells, len(layout.tiles))
    for start in range(0, cells, _CHUNK):
        part = slice(start, start + _CHUNK)
        mass_CX = torch.addmm(log_count_X, query_CD[part], key_XD.T, alpha=scale).softmax(-1)
        if layout.cells_of_tile.all_as_long:
            torch.sum(mass_CX[:, :cells].unflatten(1, by_tile), 2, out=mass_CT[part])
        else:
            mass_CT[part].index_add_(1, tile_of_cell, mass_CX[:, :cells])
    mean = _mean_of_cells(mass_CT, layout.cells_of_query_tile, layout)
    return mean, _mean_of_cells(mass_CT.square_(), layout.cells_of_query_tile, layout)


def _errors(
    square_QD: Tensor, mass_QT: Tensor, mass_square_QT: Tensor, keys: KeySummary, scale: float
) -> tuple[Tensor, Tensor]:
    """Error of the output when a tile's cells, or the tile, are one key each ``[2, Q, T]``; the output ``[Q, D]``."""
    output_QD = mass_QT @ keys.tile_value
    distance_QT = torch.cdist(output_QD, keys.tile_value)
    score_variance_2QT = (square_QD @ keys.key_variance.mT) * scale**2
    mass_error = 0.5 * score_variance_2QT * distance_QT
    value_error = score_variance_2QT.sqrt() * keys.value_deviation[:, None]
    return mass_square_QT.sqrt() * (mass_error + value_error), output_QD


def _holds_outlier(keys: KeySummary) -> Tensor:
    """Key tiles that are exact whatever their mass seems to be ``[T]``."""
    variance_T = keys.key_variance[0].sum(1)
    return variance_T > OUTLIER * variance_T.median()


def _mean_of_cells(x_CX: Tensor, runs_of_cells: Runs, layout: TileLayout) -> Tensor:
    """Mean over the tokens of runs of cells, from means over the cells."""
    count_CX = layout.cells.count[:, None].to(x_CX.dtype)
    return runs_of_cells.sum(x_CX * count_CX) / runs_of_cells.sum(count_CX)


def _flops(text_key_LD: Tensor, layout: TileLayout) -> int:
    text, head_dim = text_key_LD.shape
    places = len(layout.order)
    choosing = choosing_flops(len(layout.cells), len(layout.query_tiles), layout, text, head_dim)
    return choosing + preparing_flops(places, places, head_dim)


def choosing_flops(query_cells: int, query_tiles: int, layout: TileLayout, text: int, head_dim: int) -> int:
    """FLOPs of masses and errors for some query tiles of one head; a multiply-add is two."""
    mass = 2 * query_cells * (len(layout.cells) + text) * head_dim
    return mass + 4 * 2 * query_tiles * len(layout.tiles) * head_dim


def preparing_flops(queries: int, keys: int, head_dim: int) -> int:
    """FLOPs of means and variances of one head: two for each element read, each query twice and each key five times."""
    return 2 * (2 * queries + 5 * keys) * head_dim
