"""The tile layout as the kernels read it.

Key tiles and cells are those of `tiles.py`. Query tiles differ from the CPU's: they are runs of whole cells, as many
as fit into the rows of one program, so that rows stay full where the grid cuts tiles short. For the same reason a key
tile that is taken exactly is read in units of 16 places.

Shapes: P places, C cells, T key tiles, Q query tiles, U units.
"""

from dataclasses import dataclass, replace
from functools import lru_cache

import torch
import triton
from torch import Tensor

from ripple_core.attention.grid import LatentGrid
from ripple_core.attention.tiles import Runs, TileLayout, tile_layout

UNIT = 16
# Of all query tiles, one in so many is in the sample that tells whether a call is worth deciding for.
_SAMPLED = 16


@dataclass(frozen=True)
class QueryTiles:
    """All query tiles of a grid, or some of them.

    Attributes:
        start, count: first place and number of places ``[Q]``.
        first_cell, cells: first cell and number of cells ``[Q]``.
        first_row: where a tile's cells begin when the cells of these tiles are put one after the other ``[Q]``.
        num_rows, num_places: cells and places of all these tiles.
    """

    start: Tensor
    count: Tensor
    first_cell: Tensor
    cells: Tensor
    first_row: Tensor
    num_rows: int
    num_places: int

    def __len__(self) -> int:
        return len(self.start)


@dataclass(frozen=True)
class KernelLayout:
    """Index tensors in 32 bits, and the sizes that kernels are compiled for.

    Attributes:
        tiles: the same as the PyTorch path reads it, with these query tiles; on the CPU.
        order: the token at each place ``[P]``.
        cell_of_place: ``[P]``.
        cell_count: places of each cell ``[C]``.
        tile_start, tile_count: first place and number of places ``[T]``.
        first_cell, cells_of_tile: first cell and number of cells ``[T]``.
        tile_cell_count: places of each cell of a tile, 0 where it has fewer ``[T, cells]``.
        first_unit, units_of_tile: ``[T]``.
        unit_token: tokens of each unit, -1 where there are fewer ``[U, UNIT]``.
        queries: all query tiles.
        sample: some of them, evenly spread.
        cells: room for cells in a tile; a power of two, as all rooms are.
        places: room for places in a tile, at least 16.
        query_places, query_cells: the same of a query tile.
    """

    tiles: TileLayout
    order: Tensor
    cell_of_place: Tensor
    cell_count: Tensor
    tile_start: Tensor
    tile_count: Tensor
    first_cell: Tensor
    cells_of_tile: Tensor
    tile_cell_count: Tensor
    first_unit: Tensor
    units_of_tile: Tensor
    unit_token: Tensor
    queries: QueryTiles
    sample: QueryTiles
    cells: int
    places: int
    query_places: int
    query_cells: int


@lru_cache(maxsize=16)
def kernel_layout(grid: LatentGrid, query_tokens: int, device: torch.device) -> KernelLayout:
    """The layout of a grid with query tiles of at most so many tokens; kept for the next call."""
    layout = tile_layout(grid, 1, torch.device("cpu"))
    query_tile_of_cell = _pack(layout.cells.count.tolist(), query_tokens)
    cells_of_query_tile = Runs.of(query_tile_of_cell)
    query_tiles = Runs.of(query_tile_of_cell.repeat_interleave(layout.cells.count))
    layout = replace(layout, query_tiles=query_tiles, cells_of_query_tile=cells_of_query_tile)
    cells = triton.next_power_of_2(layout.cells_of_tile.places.shape[1])
    cell_of_tile = layout.cells_of_tile.start[:, None] + torch.arange(cells)
    is_cell = torch.arange(cells) < layout.cells_of_tile.count[:, None]
    count_TC = torch.where(is_cell, layout.cells.count[cell_of_tile.clamp(max=len(layout.cells) - 1)], 0)
    units_of_tile = (layout.tiles.count + UNIT - 1) // UNIT
    every = torch.arange(len(query_tiles))
    sample = every[(len(every) - 1) % _SAMPLED // 2 :: _SAMPLED]
    return KernelLayout(
        tiles=layout,
        order=_stored(layout.order, device),
        cell_of_place=_stored(torch.repeat_interleave(layout.cells.count), device),
        cell_count=_stored(layout.cells.count, device),
        tile_start=_stored(layout.tiles.start, device),
        tile_count=_stored(layout.tiles.count, device),
        first_cell=_stored(layout.cells_of_tile.start, device),
        cells_of_tile=_stored(layout.cells_of_tile.count, device),
        tile_cell_count=_stored(count_TC, device),
        first_unit=_stored(units_of_tile.cumsum(0) - units_of_tile, device),
        units_of_tile=_stored(units_of_tile, device),
        unit_token=_stored(_unit_tokens(layout), device),
        queries=_query_tiles(layout, every, device),
        sample=_query_tiles(layout, sample, device),
        cells=cells,
        places=_room(layout.tiles.places.shape[1]),
        query_places=_room(query_tiles.places.shape[1]),
        query_cells=_room(cells_of_query_tile.places.shape[1]),
    )


def _pack(counts: list[int], room: int) -> Tensor:
    """The bin of each item when consecutive items fill bins in turn."""
    bins, filled, number = [], 0, 0
    for count in counts:
        if filled + count > room:
            filled, number = 0, number + 1
        filled += count
        bins.append(number)
    return torch.tensor(bins)


def _unit_tokens(layout: TileLayout) -> Tensor:
    tokens = []
    for run in layout.order.split(layout.tiles.count.tolist()):
        padded = torch.nn.functional.pad(run, (0, -len(run) % UNIT), value=-1)
        tokens.append(padded.view(-1, UNIT))
    return torch.cat(tokens)


def _query_tiles(layout: TileLayout, chosen: Tensor, device: torch.device) -> QueryTiles:
    cells = layout.cells_of_query_tile.count[chosen]
    return QueryTiles(
        start=_stored(layout.query_tiles.start[chosen], device),
        count=_stored(layout.query_tiles.count[chosen], device),
        first_cell=_stored(layout.cells_of_query_tile.start[chosen], device),
        cells=_stored(cells, device),
        first_row=_stored(cells.cumsum(0) - cells, device),
        num_rows=int(cells.sum()),
        num_places=int(layout.query_tiles.count[chosen].sum()),
    )


def _stored(x: Tensor, device: torch.device) -> Tensor:
    return x.int().to(device)


def _room(count: int) -> int:
    # Matrix products take at least 16 rows.
    return max(triton.next_power_of_2(count), 16)
