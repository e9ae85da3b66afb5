"""Mode channel against a loop that follows the published text word by word."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ripple_core.attention import LatentGrid, channel_attention
from ripple_core.attention.channel import reuse_neighbours

grids = st.builds(LatentGrid, st.integers(1, 4), st.integers(1, 4), st.integers(1, 4))


def source_of(x_NHD: Tensor, grid: LatentGrid, theta: float, t: int, y: int, x: int, h: int, c: int) -> tuple[int, ...]:
    """Place whose element is used at (t, y, x), one element at a time: its own, or a neighbour's, and so on."""
    place = [t, y, x]
    values = x_NHD.view(grid.frames, grid.height, grid.width, *x_NHD.shape[1:])
    for axis in (0, 2, 1):
        if place[axis] % 2 == 0:
            continue
        neighbour = list(place)
        neighbour[axis] -= 1
        a, b = values[(*place, h, c)], values[(*neighbour, h, c)]
        mean = (a + b) / 2
        spread = torch.sqrt(((a - mean) ** 2 + (b - mean) ** 2) / 2)
        if spread < theta:
            place = neighbour
    return tuple(place)


def looped_attention(q_NHD: Tensor, k_NHD: Tensor, v_NHD: Tensor, grid: LatentGrid, theta: float) -> Tensor:
    """Each partial score is taken from the place its elements come from, then summed; plain softmax follows."""
    tokens, heads, head_dim = q_NHD.shape
    places = list(itertools.product(range(grid.frames), range(grid.height), range(grid.width)))
    index = {place: number for number, place in enumerate(places)}
    out = torch.zeros_like(v_NHD)
    for h in range(heads):
        scores = torch.zeros(tokens, tokens, dtype=q_NHD.dtype)
        for c in range(head_dim):
            q_from = [index[source_of(q_NHD, grid, theta, *place, h, c)] for place in places]
            k_from = [index[source_of(k_NHD, grid, theta, *place, h, c)] for place in places]
            partial = torch.outer(q_NHD[:, h, c], k_NHD[:, h, c])
            scores += partial[q_from][:, k_from]
        out[:, h] = torch.softmax(scores / head_dim**0.5, dim=-1) @ v_NHD[:, h]
    return out


def random_qkv(grid: LatentGrid, seed: int, heads: int = 2, head_dim: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(1, grid.num_tokens, heads, head_dim, generator=generator).double() for _ in range(3))  # type: ignore[return-value]


@settings(max_examples=25, deadline=None)
@given(grid=grids, theta=st.floats(0, 2), seed=st.integers(0, 100))
def test_equals_the_loop_over_elements(grid: LatentGrid, theta: float, seed: int) -> None:
    q, k, v = random_qkv(grid, seed)
    out, _ = channel_attention(q, k, v, grid, theta)
    torch.testing.assert_close(out[0], looped_attention(q[0], k[0], v[0], grid, theta))


@settings(max_examples=50, deadline=None)
@given(grid=grids, seed=st.integers(0, 100))
def test_threshold_zero_is_dense_attention(grid: LatentGrid, seed: int) -> None:
    q, k, v = random_qkv(grid, seed)
    out, savings = channel_attention(q, k, v, grid, 0.0)
    dense = torch.nn.functional.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v))).transpose(1, 2)
    assert torch.equal(out, dense)
    assert not savings.any()


@settings(max_examples=50, deadline=None)
@given(grid=grids, seed=st.integers(0, 100), thetas=st.tuples(st.floats(0, 3), st.floats(0, 3)))
def test_savings_grow_with_the_threshold(grid: LatentGrid, seed: int, thetas: tuple[float, float]) -> None:
    q, k, v = random_qkv(grid, seed)
    low, high = (channel_attention(q, k, v, grid, theta)[1] for theta in sorted(thetas))
    assert (low <= high).all()


@pytest.mark.parametrize(
    ("grid", "reused"),
    [
        (LatentGrid(1, 1, 1), 0.0),
        (LatentGrid(3, 1, 1), 1 / 3),
        (LatentGrid(2, 2, 2), 7 / 8),
        (LatentGrid(5, 3, 2), 1 - 3 * 2 * 1 / 30),
    ],
    ids=str,
)
def test_constant_input_is_reused_everywhere_but_in_each_windows_first(grid: LatentGrid, reused: float) -> None:
    x = torch.ones(2, grid.num_tokens, 3, 4)
    same, fraction = reuse_neighbours(x, grid, 0.1)
    assert torch.equal(same, x)
    torch.testing.assert_close(fraction, torch.full((2, 3), reused))
    _, savings = channel_attention(x, x, x, grid, 0.1)
    torch.testing.assert_close(savings, torch.full((2, 3), 1 - (1 - reused) ** 2))


def test_batch_items_do_not_see_each_other() -> None:
    grid = LatentGrid(3, 2, 3)
    first, second = random_qkv(grid, 1), random_qkv(grid, 2)
    both = [torch.cat(pair) for pair in zip(first, second, strict=True)]
    out, savings = channel_attention(*both, grid, 0.5)
    alone = [channel_attention(*qkv, grid, 0.5) for qkv in (first, second)]
    torch.testing.assert_close(out, torch.cat([single[0] for single in alone]))
    torch.testing.assert_close(savings, torch.cat([single[1] for single in alone]))


@pytest.mark.parametrize(("before", "after_q", "after_k"), [(0, 0, 0), (3, 0, 0), (0, 4, 4), (2, 5, 1)])
def test_text_is_exact_and_counts_as_not_reused(before: int, after_q: int, after_k: int) -> None:
    """Snapping the video alone by hand and multiplying densely gives the same output and the same counts."""
    grid, theta = LatentGrid(2, 3, 4), 0.4
    num_queries, num_keys = before + grid.num_tokens + after_q, before + grid.num_tokens + after_k
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, tokens, 3, 8) for tokens in (num_queries, num_keys, num_keys))
    video = slice(before, before + grid.num_tokens)
    expected_q, expected_k = q.clone(), k.clone()
    expected_q[:, video], reused_q = reuse_neighbours(q[:, video], grid, theta)
    expected_k[:, video], reused_k = reuse_neighbours(k[:, video], grid, theta)
    dense = torch.nn.functional.scaled_dot_product_attention(
        *(x.transpose(1, 2) for x in (expected_q, expected_k, v))
    ).transpose(1, 2)
    out, savings_BH = channel_attention(q, k, v, grid, theta, text_before=before)
    assert torch.equal(out, dense)
    executed = (1 - reused_q * grid.num_tokens / num_queries) * (1 - reused_k * grid.num_tokens / num_keys)
    assert torch.allclose(savings_BH, 1 - executed)
    assert savings_BH.min() > 0
