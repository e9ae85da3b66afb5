"""Cuts a latent grid into tiles, and tiles into cells: the units in which mode `ripple` reuses.

A cell is at most 2x2x2 tokens, a tile about 64 tokens (4x4x4 where the grid allows). Tokens are put in an order in
which every tile, and every cell in it, is one run; sizes need not divide the grid, so runs differ in length.
"""

from dataclasses import dataclass, fields, replace
from functools import lru_cache

import torch
from torch import Tensor

from ripple_core.attention.grid import LatentGrid

TILE_TOKENS = 64
_CELL_EXTENT = 2
# Rows whose squares are in memory at once.
_SQUARED_AT_ONCE = 2048


@dataclass(frozen=True)
class Runs:
    """Consecutive runs of places.

    Attributes:
        start: first place of each run ``[runs]``.
        count: its length ``[runs]``.
        places: every run's places ``[runs, longest]``; a shorter run repeats its last one.
        all_as_long: no run is shorter.
    """

    start: Tensor
    count: Tensor
    places: Tensor
    all_as_long: bool

    @classmethod
    def of(cls, run_of_place: Tensor) -> "Runs":
        """From the number of each place's run ``[places]``, which counts up."""
        count = torch.bincount(run_of_place)
        start = count.cumsum(0) - count
        offset = torch.arange(int(count.max()))
        places = start[:, None] + torch.minimum(offset, count[:, None] - 1)
        return cls(start, count, places, all_as_long=places.numel() == len(run_of_place))

    def to(self, device: torch.device) -> "Runs":
        """The same on a device."""
        return replace(self, start=self.start.to(device), count=self.count.to(device), places=self.places.to(device))

    def __len__(self) -> int:
        return len(self.start)

    def mean(self, x: Tensor) -> Tensor:
        """Mean of each run's rows: ``[places, X]`` to ``[runs, X]``."""
        if self.all_as_long:
            return x.unflatten(0, self.places.shape).mean(1)
        return torch.segment_reduce(x, "mean", lengths=self.count)

    def mean_square(self, x: Tensor) -> Tensor:
        """Mean of the squares of each run's rows; in parts, as a second tensor of x's size would show in the peak."""
        if self.all_as_long:
            parts = x.unflatten(0, self.places.shape).split(max(1, _SQUARED_AT_ONCE // self.places.shape[1]))
            return torch.cat([part.square().mean(1) for part in parts])
        return self.mean(x.square())

    def sum(self, x: Tensor) -> Tensor:
        """Sum of each run's rows: ``[places, X]`` to ``[runs, X]``."""
        if self.all_as_long:
            return x.unflatten(0, self.places.shape).sum(1)
        return torch.segment_reduce(x, "sum", lengths=self.count)


@dataclass(frozen=True)
class TileLayout:
    """Tiles and cells of one grid.

    Attributes:
        order: the token at each place ``[N]``.
        cells: runs of places.
        tiles: runs of places.
        cells_of_tile: runs of cells.
        query_tiles: runs of places; each is one tile of queries, or several side by side.
        cells_of_query_tile: runs of cells.
    """

    order: Tensor
    cells: Runs
    tiles: Runs
    cells_of_tile: Runs
    query_tiles: Runs
    cells_of_query_tile: Runs

    def to(self, device: torch.device) -> "TileLayout":
        """The same on a device."""
        return TileLayout(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})


@lru_cache(maxsize=16)
def tile_layout(grid: LatentGrid, tiles_per_query_tile: int, device: torch.device) -> TileLayout:
    """The layout of a grid; kept for the next call."""
    sizes = (grid.frames, grid.height, grid.width)
    tiles, cells = [], []
    for size, extent in zip(sizes, tile_extents(sizes), strict=True):
        tile, cell = _cut_axis(size, extent)
        tiles.append(tile)
        cells.append(cell)
    tile_of_token = _combine(tiles)
    cell_of_token = _combine(cells)
    order = torch.argsort(tile_of_token * (int(cell_of_token.max()) + 1) + cell_of_token, stable=True)
    cell_of_place = _number_runs(torch.stack([tile_of_token[order], cell_of_token[order]]))
    tile_of_place = _number_runs(tile_of_token[order][None])
    query_tile_of_place = tile_of_place // tiles_per_query_tile
    first_of_cell = torch.searchsorted(cell_of_place, torch.arange(int(cell_of_place[-1]) + 1))
    layout = TileLayout(
        order=order,
        cells=Runs.of(cell_of_place),
        tiles=Runs.of(tile_of_place),
        cells_of_tile=Runs.of(tile_of_place[first_of_cell]),
        query_tiles=Runs.of(query_tile_of_place),
        cells_of_query_tile=Runs.of(query_tile_of_place[first_of_cell]),
    )
    return layout.to(device)


def tile_extents(sizes: tuple[int, int, int]) -> tuple[int, int, int]:
    """Extents of about TILE_TOKENS tokens: as even as the grid allows; a short axis lets the others grow."""
    extents = [1, 1, 1]
    while True:
        # The last axes grow first: tokens beside each other in memory.
        growable = [axis for axis in (2, 1, 0) if extents[axis] < sizes[axis]]
        if not growable:
            break
        axis = min(growable, key=lambda axis: extents[axis])
        if 2 * extents[0] * extents[1] * extents[2] > TILE_TOKENS:
            break
        extents[axis] *= 2
    return extents[0], extents[1], extents[2]


def _cut_axis(size: int, extent: int) -> tuple[Tensor, Tensor]:
    """For each position on an axis: its tile, and its cell within the tile. Tiles are as even as can be."""
    tile_index = torch.empty(size, dtype=torch.long)
    cell_index = torch.empty(size, dtype=torch.long)
    for number, part in enumerate(torch.arange(size).tensor_split(-(-size // extent))):
        tile_index[part] = number
        cell_index[part] = (part - part[0]) // _CELL_EXTENT
    return tile_index, cell_index


def _combine(indices: list[Tensor]) -> Tensor:
    """One number for each token from the numbers along t, y, x: ``[N]``."""
    t, y, x = torch.meshgrid(*indices, indexing="ij")
    return ((t * (int(y.max()) + 1) + y) * (int(x.max()) + 1) + x).flatten()


def _number_runs(keys: Tensor) -> Tensor:
    """Counts up where any of the keys ``[keys, N]`` changes."""
    changes = (keys[:, 1:] != keys[:, :-1]).any(0)
    return torch.cat([changes.new_zeros(1).long(), changes.long().cumsum(0)])
