"""What mode `ripple` means: one tile and one query at a time, in float64, sharing nothing with the fast path.

METHOD.md derives the estimates. Shapes: N query tokens, M key tokens, D head_dim; Q query tiles, T key tiles.
"""

import itertools
import math
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor

from ripple_core.attention.grid import LatentGrid
from ripple_core.attention.tiles import tile_extents

Tokens = list[int]
T = TypeVar("T")


def reference_tiles(grid: LatentGrid, text_before: int = 0) -> list[list[Tokens]]:
    """Tiles in order; of each its cells; of each the numbers of its tokens.

    An axis of n tokens is cut into ceil(n / extent) tiles as even as can be, longer ones first; a tile is cut into
    cells of two from its first token on.
    """
    sizes = (grid.frames, grid.height, grid.width)
    parts = []
    for size, extent in zip(sizes, tile_extents(sizes), strict=True):
        count = math.ceil(size / extent)
        lengths = [size // count + (index < size % count) for index in range(count)]
        parts.append([range(sum(lengths[:i]), sum(lengths[: i + 1])) for i in range(count)])
    return [_cells(tile, grid, text_before) for tile in itertools.product(*parts)]


def reference_query_tiles(grid: LatentGrid, tokens: int, text_before: int = 0) -> list[list[Tokens]]:
    """Query tiles of the kernels, each a list of cells: as many consecutive cells as fit into so many tokens."""
    query_tiles: list[list[Tokens]] = [[]]
    for cell in _flat(reference_tiles(grid, text_before)):
        if len(_flat(query_tiles[-1])) + len(cell) > tokens:
            query_tiles.append([])
        query_tiles[-1].append(cell)
    return query_tiles


def _cells(tile: tuple[range, ...], grid: LatentGrid, text_before: int) -> list[Tokens]:
    halves = [[axis[i : i + 2] for i in range(0, len(axis), 2)] for axis in tile]
    return [
        [text_before + (t * grid.height + y) * grid.width + x for t, y, x in itertools.product(*cell)]
        for cell in itertools.product(*halves)
    ]


def reference_objective(
    query_ND: Tensor,
    key_MD: Tensor,
    value_MD: Tensor,
    grid: LatentGrid,
    budget: float,
    scale: float,
    text_before: int = 0,
    query_tiles: Sequence[list[Tokens]] | None = None,
) -> Tensor:
    """What each treatment of each pair costs, error and work together ``[3, Q, T]``; the smallest is chosen.

    The order of treatments is exact, cells, tile. A tile whose keys vary within cells 100 times more than those of the
    median tile holds an outlier and is exact. Arguments as in `ripple_attention`, for one head; `query_tiles` are lists
    of cells, the key tiles by default.
    """
    q, k, v = (x.double() for x in (query_ND, key_MD, value_MD))
    tiles = reference_tiles(grid, text_before)
    query_tiles = query_tiles or tiles
    video = range(text_before, text_before + grid.num_tokens)
    text = [token for token in range(len(k)) if token not in video]

    mean_mass, rms_mass = _masses(q, k, query_tiles, tiles, text, scale)
    values = _means(v, [_flat(tile) for tile in tiles])
    outputs = mean_mass @ values
    size = outputs.square().sum(1).mean().sqrt().clamp(min=torch.finfo(torch.float32).tiny)
    in_cells = torch.stack([_variance_within(k, tile).sum() for tile in tiles])
    outlier = in_cells > 100 * in_cells.median()
    squares = [q[_flat(cells)].square().mean(0) for cells in query_tiles]
    distances = torch.cdist(outputs, values)
    objective = torch.zeros(3, len(query_tiles), len(tiles), dtype=torch.double)
    for number, tile in enumerate(tiles):
        for treatment, groups in enumerate(_groups(tile)):
            variance = _variance_within(k, groups)
            deviation = _variance_within(v, groups).sum().sqrt()
            for index, square in enumerate(squares):
                distance, mass = distances[index, number], rms_mass[index, number]
                score_variance = (square * variance).sum() * scale**2
                error = mass * (score_variance / 2 * distance + score_variance.sqrt() * deviation)
                if outlier[number] and treatment > 0:
                    error = torch.full_like(error, torch.inf)
                objective[treatment, index, number] = (error / size) ** 2 + budget**2 * len(groups) / len(k)
    return objective


def reference_attention(
    query_ND: Tensor,
    key_MD: Tensor,
    value_MD: Tensor,
    grid: LatentGrid,
    treatment_QT: Tensor,
    scale: float,
    text_before: int = 0,
    query_tiles: Sequence[list[Tokens]] | None = None,
) -> Tensor:
    """The output of one head for given treatments ``[N, D]``.

    A query weighs each group of tokens that stands as one key by count * exp(mean score). Text is exact.
    """
    q, k, v = (x.double() for x in (query_ND, key_MD, value_MD))
    tiles = reference_tiles(grid, text_before)
    video = range(text_before, text_before + grid.num_tokens)
    text = [[token] for token in range(len(k)) if token not in video]
    out = torch.empty_like(q)

    def attend(queries: Tokens, groups: list[Tokens]) -> None:
        keys, values, log_counts = _means(k, groups), _means(v, groups), _log_counts(groups)
        for token in queries:
            out[token] = (keys @ q[token] * scale + log_counts).softmax(0) @ values

    attend([token for token in range(len(q)) if token not in video], [[token] for token in range(len(k))])
    for cells, row in zip(query_tiles or tiles, treatment_QT.tolist(), strict=True):
        chosen = [_groups(tile)[treatment] for tile, treatment in zip(tiles, row, strict=True)]
        attend(_flat(cells), text + _flat(chosen))
    return out


def _flat(lists: Sequence[list[T]]) -> list[T]:
    return list(itertools.chain.from_iterable(lists))


def _groups(tile: list[Tokens]) -> list[list[Tokens]]:
    """The tokens that stand as one key, by treatment."""
    tokens = _flat(tile)
    return [[[token] for token in tokens], tile, [tokens]]


def _masses(
    q: Tensor, k: Tensor, query_tiles: Sequence[list[Tokens]], tiles: list[list[Tokens]], text: Tokens, scale: float
) -> tuple[Tensor, Tensor]:
    """Attention mass of each key tile for each query tile: mean over its queries, and root mean square, ``[Q, T]``.

    Scores are those between means of cells; a text token is a cell of its own.
    """
    cells = _flat(tiles) + [[token] for token in text]
    tile_of_cell = torch.tensor([number for number, tile in enumerate(tiles) for _ in tile])
    keys, log_counts = _means(k, cells), _log_counts(cells)
    mean, square = torch.zeros(2, len(query_tiles), len(tiles), dtype=torch.double)
    for index, query_cells in enumerate(query_tiles):
        tokens = len(_flat(query_cells))
        for query_cell in query_cells:
            mass = (keys @ q[query_cell].mean(0) * scale + log_counts).softmax(0)
            of_tile = torch.zeros(len(tiles), dtype=torch.double).index_add(0, tile_of_cell, mass[: len(tile_of_cell)])
            mean[index] += of_tile * len(query_cell) / tokens
            square[index] += of_tile**2 * len(query_cell) / tokens
    return mean, square.sqrt()


def _means(x: Tensor, groups: Sequence[Tokens]) -> Tensor:
    """Of the tokens of each group ``[groups, D]``."""
    return torch.stack([x[group].mean(0) for group in groups])


def _log_counts(groups: Sequence[Tokens]) -> Tensor:
    """What the number of its tokens adds to the score of a mean ``[groups]``."""
    return torch.tensor([len(group) for group in groups], dtype=torch.double).log()


def _variance_within(x: Tensor, groups: list[Tokens]) -> Tensor:
    """By channel, of tokens about the mean of their group, averaged over all tokens ``[D]``."""
    tokens = sum(len(group) for group in groups)
    return sum(((x[group] - x[group].mean(0)) ** 2).sum(0) for group in groups) / tokens  # type: ignore[return-value]
