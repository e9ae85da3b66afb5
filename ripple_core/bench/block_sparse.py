"""Baselines that keep the heaviest blocks of keys exact, and drop or pool the rest.

"drop" stands for the block-sparse family, "pool" for the pyramid family: every block left out becomes one key, the
mean of its keys, whose score gets log(count) added, with the mean of its values.

Shapes: B batch, N tokens, H heads, D head_dim; C cells of the grid, S tokens of a cell.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ripple_core.attention import AttentionCall, Executed, LatentGrid, RunDense, StepSchedule

# A cell is about 4x4x4 tokens, the 64-token block of the field; the extent that wastes least padding wins.
_EXTENTS = (4, 3, 5)
# Query cells whose gathered keys are in memory at once.
_CHUNK = 32


@dataclass(frozen=True)
class BlockSparse:
    """Exact attention to `kept` cells of keys per cell of queries.

    Args:
        kept: 1..cells; the query's own cell is always among them, the others are the heaviest by the softmax over
            products of cell means.
        rest: what happens to the others.
        schedule: its dense steps are dense here, too; strength does not matter.
    """

    kept: int
    rest: Literal["drop", "pool"]
    schedule: StepSchedule

    @property
    def name(self) -> str:
        """For reports."""
        return f"{self.rest}, {self.kept} cells kept"

    @property
    def aggressiveness(self) -> float:
        """These methods have no such dial."""
        return 1.0

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, call: AttentionCall
    ) -> tuple[Tensor, Executed] | RunDense:
        """See `AttentionMethod`."""
        if self.schedule.strength(call.step, call.num_steps) is None:
            return RunDense()
        cells = _cells_of(call.grid, query.device)
        scale = call.scale or query.shape[-1] ** -0.5
        blocks = [cells.gather(x) for x in (query, key, value)]
        means = [block.sum(3) / cells.count.view(-1, 1) for block in blocks]
        chosen_BHCK = self._choose(means[0], means[1], cells, scale)
        out = self._attend_chosen(blocks, means, chosen_BHCK, cells, scale)
        return cells.scatter(out), self._executed(chosen_BHCK, cells)

    def _executed(self, chosen_BHCK: Tensor, cells: "_Cells") -> Executed:
        """Pairs of real tokens (and of tokens and pooled cells), and of cells for the decision."""
        num_cells, num_tokens = len(cells.count), float(cells.count.sum())
        keys_BHC = cells.count[chosen_BHCK].sum(-1)
        if self.rest == "pool":
            keys_BHC = keys_BHC + num_cells - chosen_BHCK.shape[-1]
        pairs_BH = (keys_BHC * cells.count).sum(-1) / num_tokens**2
        return Executed(pairs_BH + (num_cells / num_tokens) ** 2, pairs_BH)

    def _choose(self, query_BHCD: Tensor, key_BHCD: Tensor, cells: "_Cells", scale: float) -> Tensor:
        """Indices ``[B, H, C, kept]`` of key cells."""
        mass = query_BHCD @ key_BHCD.transpose(-1, -2) * scale + cells.count.log()
        mass.diagonal(dim1=-2, dim2=-1).fill_(torch.inf)
        return mass.topk(min(self.kept, len(cells.count)), dim=-1).indices

    def _attend_chosen(
        self, blocks: list[Tensor], means: list[Tensor], chosen_BHCK: Tensor, cells: "_Cells", scale: float
    ) -> Tensor:
        query, key, value = (block.flatten(0, 1) for block in blocks)
        _, mean_key, mean_value = (mean.flatten(0, 1) for mean in means)
        chosen = chosen_BHCK.flatten(0, 1)
        rows = torch.arange(len(query), device=query.device).view(-1, 1, 1)
        out = torch.empty_like(query)
        for start in range(0, query.shape[1], _CHUNK):
            part = slice(start, start + _CHUNK)
            index = chosen[:, part]
            keys, values = key[rows, index].flatten(2, 3), value[rows, index].flatten(2, 3)
            bias = cells.padding[index].flatten(2, 3)
            if self.rest == "pool":
                size = (-1, index.shape[1], -1, -1)
                keys = torch.cat([keys, mean_key[:, None].expand(size)], dim=2)
                values = torch.cat([values, mean_value[:, None].expand(size)], dim=2)
                left_out = cells.count.log().expand(*index.shape[:2], -1).scatter(2, index, -torch.inf)
                bias = torch.cat([bias, left_out], dim=2)
            out[:, part] = F.scaled_dot_product_attention(
                query[:, part], keys, values, attn_mask=bias[:, :, None].to(query.dtype), scale=scale
            )
        return out.unflatten(0, blocks[0].shape[:2])


@dataclass(frozen=True)
class _Cells:
    """The grid cut into cells.

    Attributes:
        tokens: token index of each place ``[C, S]``, -1 for padding.
        count: tokens of each cell ``[C]``, float.
        padding: 0 or -inf, to be added to scores ``[C, S]``.
    """

    tokens: Tensor
    count: Tensor
    padding: Tensor

    def gather(self, x_BNHD: Tensor) -> Tensor:
        """``[B, H, C, S, D]``, zero where padded."""
        gathered = x_BNHD.transpose(1, 2)[:, :, self.tokens.clamp(min=0)]
        return gathered.masked_fill((self.tokens < 0)[..., None], 0)

    def scatter(self, x_BHCSD: Tensor) -> Tensor:
        """Back to ``[B, N, H, D]``."""
        real = self.tokens >= 0
        order = self.tokens[real].argsort()
        return x_BHCSD[:, :, real][:, :, order].transpose(1, 2)


def num_cells(grid: LatentGrid) -> int:
    """How many cells a grid is cut into."""
    return len(_cells_of(grid, torch.device("cpu")).count)


@lru_cache(maxsize=8)
def _cells_of(grid: LatentGrid, device: torch.device) -> _Cells:
    extents = [min(_EXTENTS, key=lambda extent: -size % extent / extent) for size in _sizes(grid)]
    places = torch.arange(grid.num_tokens, device=device).view(*_sizes(grid))
    pad = [amount for size, extent in zip(_sizes(grid), extents, strict=True) for amount in (-size % extent, 0)]
    padded = F.pad(places, pad[::-1], value=-1)
    for axis in (2, 1, 0):
        padded = padded.unflatten(axis, (-1, extents[axis]))
    tokens = padded.permute(0, 2, 4, 1, 3, 5).flatten(3, 5).flatten(0, 2)
    real = tokens >= 0
    padding = torch.zeros(tokens.shape, device=device).masked_fill(~real, -torch.inf)
    return _Cells(tokens, real.sum(1).float(), padding)


def _sizes(grid: LatentGrid) -> tuple[int, int, int]:
    return grid.frames, grid.height, grid.width
