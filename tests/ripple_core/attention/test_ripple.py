"""Mode ripple: decision and output against the loops of the reference, and inputs that are out to break it."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ripple_core.attention import LatentGrid, ripple
from ripple_core.attention.decide import decide, summarise_keys, summarise_queries
from ripple_core.attention.reference import reference_attention, reference_objective, reference_tiles
from ripple_core.attention.tiles import TILE_TOKENS, tile_layout

CPU = torch.device("cpu")
ODD_GRIDS = [(1, 9, 10), (11, 1, 1), (5, 4, 6), (3, 7, 5), (2, 13, 1), (7, 3, 11)]
grids = st.builds(LatentGrid, st.integers(1, 6), st.integers(1, 7), st.integers(1, 7))


def smooth_qkv(
    grid: LatentGrid, text: int = 0, heads: int = 1, head_dim: int = 8, seed: int = 0, noise: float = 0.2
) -> tuple[Tensor, Tensor, Tensor]:
    """Fields that vary slowly over the grid, with text tokens after them ``[1, tokens, heads, head_dim]``."""
    generator = torch.Generator().manual_seed(seed)
    sizes = (grid.frames, grid.height, grid.width)
    tensors = []
    for amplitude in (2.0, 2.0, 1.0):
        coarse = torch.randn(1, heads * head_dim, *(size // 4 + 2 for size in sizes), generator=generator)
        field = F.interpolate(coarse, size=sizes, mode="trilinear", align_corners=True)[0]
        field = amplitude * (field + noise * torch.randn(field.shape, generator=generator))
        video = field.flatten(1).T.reshape(1, grid.num_tokens, heads, head_dim)
        tensors.append(torch.cat([video, torch.randn(1, text, heads, head_dim, generator=generator)], dim=1))
    return tensors[0], tensors[1], tensors[2]


def dense(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v))).transpose(1, 2)


@settings(max_examples=50, deadline=None)
@given(grid=grids, per_query_tile=st.integers(1, 3))
def test_layout_holds_every_token_once_in_the_tiles_of_the_reference(grid: LatentGrid, per_query_tile: int) -> None:
    layout = tile_layout(grid, per_query_tile, CPU)
    cells = [cell for tile in reference_tiles(grid) for cell in tile]
    assert [sorted(run.tolist()) for run in layout.order.split(layout.cells.count.tolist())] == cells
    assert layout.cells_of_tile.count.tolist() == [len(tile) for tile in reference_tiles(grid)]
    assert int(layout.tiles.count.max()) <= TILE_TOKENS
    assert int(layout.query_tiles.count.sum()) == grid.num_tokens


@settings(max_examples=25, deadline=None)
@given(grid=grids, text=st.integers(0, 3), budget=st.floats(0.01, 2), seed=st.integers(0, 50))
def test_choices_are_the_references_best(grid: LatentGrid, text: int, budget: float, seed: int) -> None:
    q, k, v = (x[0, :, 0] for x in smooth_qkv(grid, text, seed=seed))
    layout, num_video = tile_layout(grid, 1, CPU), grid.num_tokens
    in_order = [x[:num_video][layout.order] for x in (q, k, v)]
    queries, keys = summarise_queries(in_order[0], layout), summarise_keys(*in_order[1:], layout)
    decision = decide(queries, k[num_video:], keys, layout, 0.5, budget)
    objective = reference_objective(q, k, v, grid, budget, scale=0.5)
    chosen = objective.gather(0, decision.treatment[None])[0]
    # Equal but for rounding: where two treatments cost the same, either is right.
    assert torch.all(chosen <= objective.amin(0) * (1 + 1e-3) + 1e-9)


@pytest.mark.parametrize("sizes", ODD_GRIDS, ids=str)
@pytest.mark.parametrize(("before", "after"), [(0, 0), (3, 0), (0, 4), (2, 5)])
def test_output_equals_the_reference(
    sizes: tuple[int, int, int], before: int, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With text before, after and around the video, and the last two text keys cropped where there are enough."""
    monkeypatch.setattr(ripple, "WORTH_IT", 2.0)
    grid, budget, scale = LatentGrid(*sizes), 0.8, 0.4
    q, k, v = (x.roll(before, 1) for x in smooth_qkv(grid, before + after, heads=2))
    if after > 2:
        k, v = k[:, :-2], v[:, :-2]
    out, executed = ripple.ripple_attention(q, k, v, grid, budget, scale, before)
    assert not executed.dense_heads
    for h in range(2):
        head = [x[0, :, h] for x in (q, k, v)]
        treatment = reference_objective(*head, grid, budget, scale, before).argmin(0)
        expected = reference_attention(*head, grid, treatment, scale, before)
        torch.testing.assert_close(out[0, :, h].double(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("per_query_tile", [2, 3])
def test_output_with_longer_query_tiles_equals_the_reference(
    per_query_tile: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long sequences have them; the last query tile is shorter than the others."""
    monkeypatch.setattr(ripple, "_QUERY_TILES", ((0, per_query_tile),))
    monkeypatch.setattr(ripple, "WORTH_IT", 2.0)
    grid, budget, scale = LatentGrid(5, 9, 10), 0.8, 0.4
    q, k, v = (x[0, :, 0] for x in smooth_qkv(grid, text=3))
    out, executed = ripple.ripple_attention(*(x[None, :, None] for x in (q, k, v)), grid, budget, scale)
    tiles = reference_tiles(grid)
    query_tiles = [list(itertools.chain(*tiles[i : i + per_query_tile])) for i in range(0, len(tiles), per_query_tile)]
    treatment = reference_objective(q, k, v, grid, budget, scale, 0, query_tiles).argmin(0)
    assert not executed.dense_heads
    expected = reference_attention(q, k, v, grid, treatment, scale, 0, query_tiles)
    torch.testing.assert_close(out[0, :, 0].double(), expected, rtol=1e-4, atol=1e-5)


def test_every_treatment_is_taken_by_some_input_above() -> None:
    """Or the comparisons would say little."""
    q, k, v = (x[0, :, 0] for x in smooth_qkv(LatentGrid(5, 9, 10), text=3))
    treatment = reference_objective(q, k, v, LatentGrid(5, 9, 10), 0.8, 0.4).argmin(0)
    assert set(treatment.flatten().tolist()) == {0, 1, 2}


@settings(max_examples=25, deadline=None)
@given(budgets=st.lists(st.floats(0, 3), min_size=2, max_size=4), seed=st.integers(0, 50), noise=st.floats(0, 2))
def test_savings_never_fall_as_the_budget_rises(budgets: list[float], seed: int, noise: float) -> None:
    grid = LatentGrid(4, 8, 8)
    q, k, v = smooth_qkv(grid, seed=seed, noise=noise)
    executed = [float(ripple.ripple_attention(q, k, v, grid, budget)[1].values_H) for budget in sorted(budgets)]
    assert executed == sorted(executed, reverse=True)


@settings(max_examples=25, deadline=None)
@given(budget=st.floats(0, 3), seed=st.integers(0, 50), noise=st.floats(0, 2))
def test_the_estimated_error_stays_within_the_budget(budget: float, seed: int, noise: float) -> None:
    grid = LatentGrid(4, 8, 8)
    layout = tile_layout(grid, 1, CPU)
    q, k, v = (x[0, layout.order, 0] for x in smooth_qkv(grid, seed=seed, noise=noise))
    queries, keys = summarise_queries(q, layout), summarise_keys(k, v, layout)
    decision = decide(queries, k[:0], keys, layout, 0.35, budget)
    assert torch.all(decision.error <= budget * (1 + 1e-5))


def test_a_budget_of_0_is_dense_attention() -> None:
    grid = LatentGrid(4, 8, 8)
    q, k, v = smooth_qkv(grid, heads=3)
    out, executed = ripple.ripple_attention(q, k, v, grid, budget=0)
    assert torch.equal(out, dense(q, k, v))
    assert torch.all(executed.values_H == 1)
    assert torch.all(executed.scores_H > 1), "deciding was not counted"
    assert executed.dense_heads == {"little_to_save": 3}


def test_smooth_inputs_save_and_stay_close() -> None:
    grid = LatentGrid(8, 16, 16)
    q, k, v = smooth_qkv(grid, heads=2, head_dim=16, noise=0.05)
    out, executed = ripple.ripple_attention(q, k, v, grid, budget=0.6)
    assert torch.all(executed.values_H < 0.5)
    assert (out - dense(q, k, v)).norm() < 0.6 * out.norm()


def test_noise_runs_dense_rather_than_wrong() -> None:
    grid = LatentGrid(4, 8, 8)
    q, k, v = (3 * torch.randn(1, grid.num_tokens, 2, 16, generator=torch.Generator().manual_seed(0)) for _ in range(3))
    out, _ = ripple.ripple_attention(q, k, v, grid, budget=0.2)
    assert (out - dense(q, k, v)).norm() < 0.2 * out.norm()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_is_as_close_as_sdpa_to_the_same_mathematics(dtype: torch.dtype) -> None:
    """Against the reference in float64 on the same rounded inputs; means are rounded to the input's type."""
    grid, scale, budget = LatentGrid(5, 8, 9), 0.35, 1.5
    q, k, v = (x.to(dtype) for x in smooth_qkv(grid, text=4))
    out, executed = ripple.ripple_attention(q, k, v, grid, budget, scale)
    assert out.dtype == dtype
    assert not executed.dense_heads
    head = [x[0, :, 0] for x in (q, k, v)]
    treatment = reference_objective(*head, grid, budget, scale).argmin(0)
    expected = reference_attention(*head, grid, treatment, scale)
    everything_exact = reference_attention(*head, grid, torch.zeros_like(treatment), scale)
    sdpa = F.scaled_dot_product_attention(*(x[None, None] for x in head), scale=scale)[0, 0].double()
    error = (out[0, :, 0].double() - expected).norm() / expected.norm()
    assert error < 2 * (sdpa - everything_exact).norm() / everything_exact.norm()


@pytest.mark.parametrize("poison", [float("nan"), float("inf")], ids=str)
@pytest.mark.parametrize("which", [0, 1, 2], ids=["query", "key", "value"])
def test_a_nan_or_infinity_does_what_it_does_in_sdpa(poison: float, which: int) -> None:
    """In the head that holds it; the other head reuses as ever."""
    grid = LatentGrid(4, 8, 8)
    tensors = smooth_qkv(grid, heads=2)
    tensors[which][0, 7, 1, 2] = poison
    out, executed = ripple.ripple_attention(*tensors, grid, budget=2)
    torch.testing.assert_close(out[:, :, 1], dense(*tensors)[:, :, 1], equal_nan=True, rtol=0, atol=0)
    assert out[:, :, 0].isfinite().all()
    assert executed.dense_heads == {"not_finite": 1}
    assert executed.values_H[0] < 1


def test_one_enormous_key_takes_everything() -> None:
    grid = LatentGrid(4, 8, 8)
    q, k, v = smooth_qkv(grid)
    k[0, 100, 0] = 1e4 * q[0, :, 0].mean(0)
    out, _ = ripple.ripple_attention(q, k, v, grid, budget=0.5)
    expected = dense(q, k, v)
    taken = (expected - v[:, 100:101]).abs().amax(-1) < 1e-6
    assert 0 < int(taken.sum()) < grid.num_tokens
    torch.testing.assert_close(out[taken], expected[taken])
    assert (out - expected).norm() < 0.2 * expected.norm()


def test_equal_keys_need_no_more_than_their_count() -> None:
    """With keys all equal, means are exact whatever the values are."""
    grid = LatentGrid(5, 9, 7)
    q, k, v = smooth_qkv(grid)
    k[:] = k[:, :1]
    out, executed = ripple.ripple_attention(q, k, v, grid, budget=0.01)
    torch.testing.assert_close(out, dense(q, k, v))
    assert float(executed.values_H) < 0.1


def test_batch_items_do_not_mix() -> None:
    grid = LatentGrid(4, 8, 8)
    one, other = smooth_qkv(grid, seed=1), smooth_qkv(grid, seed=2)
    together, _ = ripple.ripple_attention(*(torch.cat(pair) for pair in zip(one, other, strict=True)), grid, 0.5)
    alone = [ripple.ripple_attention(*item, grid, 0.5)[0] for item in (one, other)]
    assert torch.equal(together, torch.cat(alone))
