"""The block baselines against dense attention under a mask, built token by token."""

import itertools
from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ripple_core.attention import AttentionCall, LatentGrid, RunDense
from ripple_core.attention.schedule import PUBLISHED_SCHEDULE as SCHEDULE
from ripple_core.bench.block_sparse import BlockSparse, num_cells

grids = st.builds(LatentGrid, st.integers(1, 9), st.integers(1, 9), st.integers(1, 9))
REUSING_STEP, NUM_STEPS = 7, 10


def extent(size: int) -> int:
    return min((4, 3, 5), key=lambda extent: -size % extent / extent)


def cells_by_hand(grid: LatentGrid) -> list[list[int]]:
    """Token indices of each cell."""
    sizes = (grid.frames, grid.height, grid.width)
    cells: dict[tuple[int, ...], list[int]] = {}
    for index, place in enumerate(itertools.product(*map(range, sizes))):
        cell = tuple(p // extent(size) for p, size in zip(place, sizes, strict=True))
        cells.setdefault(cell, []).append(index)
    return [cells[key] for key in sorted(cells)]


def by_hand(q_ND: Tensor, k_ND: Tensor, v_ND: Tensor, cells: list[list[int]], kept: int, rest: str) -> Tensor:
    scale = q_ND.shape[1] ** -0.5
    mean_k = torch.stack([k_ND[cell].mean(0) for cell in cells])
    mean_v = torch.stack([v_ND[cell].mean(0) for cell in cells])
    count = torch.tensor([float(len(cell)) for cell in cells])
    out = torch.empty_like(v_ND)
    for number, cell in enumerate(cells):
        mass = mean_k @ q_ND[cell].mean(0) * scale + count.log()
        mass[number] = torch.inf
        chosen = set(mass.topk(min(kept, len(cells))).indices.tolist())
        exact = [token for other in chosen for token in cells[other]]
        pooled = [other for other in range(len(cells)) if other not in chosen] if rest == "pool" else []
        keys, values = torch.cat([k_ND[exact], mean_k[pooled]]), torch.cat([v_ND[exact], mean_v[pooled]])
        bias = torch.cat([torch.zeros(len(exact)), count[pooled].log()])
        out[cell] = (q_ND[cell] @ keys.T * scale + bias).softmax(-1) @ values
    return out


@pytest.mark.parametrize("rest", ["drop", "pool"])
@settings(max_examples=25, deadline=None)
@given(grid=grids, kept=st.integers(1, 4), seed=st.integers(0, 2**16))
def test_it_is_what_the_loop_says(rest: Literal["drop", "pool"], grid: LatentGrid, kept: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    shape = (2, grid.num_tokens, 2, 8)
    q, k, v = (torch.randn(shape, generator=generator) for _ in range(3))
    result = BlockSparse(kept, rest, SCHEDULE).attend(q, k, v, AttentionCall(grid, 0, REUSING_STEP, NUM_STEPS))
    assert not isinstance(result, RunDense)
    cells = cells_by_hand(grid)
    assert len(cells) == num_cells(grid)
    for batch, head in itertools.product(range(2), range(2)):
        expected = by_hand(q[batch, :, head], k[batch, :, head], v[batch, :, head], cells, kept, rest)
        torch.testing.assert_close(result[0][batch, :, head], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("rest", ["drop", "pool"])
def test_executed_flops_by_hand(rest: Literal["drop", "pool"]) -> None:
    # 4x8x8 tokens are 4 cells of 64: each query meets 3 * 64 keys, and one pooled key where the rest is pooled.
    grid = LatentGrid(4, 8, 8)
    q, k, v = (torch.randn(1, 256, 2, 8) for _ in range(3))
    result = BlockSparse(3, rest, SCHEDULE).attend(q, k, v, AttentionCall(grid, 0, REUSING_STEP, NUM_STEPS))
    assert not isinstance(result, RunDense)
    keys = 192 + (rest == "pool")
    assert result[1].values_H.tolist() == pytest.approx([keys / 256] * 2)
    # Choosing takes a product of 4 by 4 cell means.
    assert result[1].scores_H.tolist() == pytest.approx([keys / 256 + 16 / 256**2] * 2)


@pytest.mark.parametrize("step", [0, 1, 9])
def test_the_dense_steps_of_the_schedule_stay_dense(step: int) -> None:
    q = torch.randn(1, 8, 1, 8)
    assert (
        BlockSparse(1, "drop", SCHEDULE).attend(q, q, q, AttentionCall(LatentGrid(2, 2, 2), 0, step, NUM_STEPS))
        == RunDense()
    )
