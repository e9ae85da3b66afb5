"""Mode ripple on Triton kernels against the PyTorch path and the float64 reference."""

import itertools
import random
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import ripple_core
from ripple_core.attention import LatentGrid, backend, dense_attention
from ripple_core.attention.decide import decide, keys_taken, summarise_keys, summarise_queries
from ripple_core.attention.kernels import ripple
from ripple_core.attention.kernels.attend import attend
from ripple_core.attention.kernels.choose import choose, make_lists
from ripple_core.attention.kernels.config import KernelConfig
from ripple_core.attention.kernels.layout import KernelLayout, kernel_layout
from ripple_core.attention.kernels.mass import tile_mass
from ripple_core.attention.kernels.prepare import Video, prepare_keys, prepare_queries
from ripple_core.attention.kernels.ripple import triton_ripple_attention
from ripple_core.attention.reference import (
    reference_attention,
    reference_objective,
    reference_query_tiles,
    reference_tiles,
)
from ripple_core.bench.attention_inputs import synthetic_inputs
from ripple_core.bench.video_sizes import VIDEO_SIZES

CONFIG = KernelConfig(query_tokens=64, keys_at_once=32)
SIZES = [(1, 9, 10), (11, 1, 1), (3, 7, 5), (5, 4, 6), (2, 13, 1)]
TEXTS = [(0, 0), (3, 0), (0, 4), (2, 37)]
SCALE = 0.35


def inputs(
    sizes: tuple[int, int, int],
    text: tuple[int, int] = (0, 0),
    heads: int = 2,
    head_dim: int = 16,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    noise: float = 0.2,
) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value with text before and after the video, other ones in every run of the tests."""
    seed = random.SystemRandom().randrange(2**31)
    print("seed", seed)  # noqa: T201 - pytest shows it with a failure
    made = synthetic_inputs(LatentGrid(*sizes), heads, head_dim, seed, noise=noise, text=text)
    # A channel that hardly varies over few tokens comes out large, and so would the rounding of its scores.
    q, k, v = (1.5 * x / x.square().mean().sqrt() for x in (made.query, made.key, made.value))
    return q.to(device, dtype), k.to(device, dtype), v.to(device, dtype)


def flat(lists: Iterable[list[Any]]) -> list[Any]:
    return list(itertools.chain.from_iterable(lists))


@pytest.fixture
def reuses(monkeypatch: pytest.MonkeyPatch) -> None:
    """No head runs dense for having little to save."""
    monkeypatch.setattr(ripple, "WORTH_IT", 2.0)
    monkeypatch.setattr(ripple, "_SAMPLE_WORTH_IT", 2.0)


def video_of(q: Tensor, k: Tensor, v: Tensor, text_before: int = 0) -> Video:
    groups = q.shape[0] * q.shape[2]
    return Video(q, k, v, text_before, 0, groups, torch.zeros(groups, dtype=torch.int8, device=q.device))


@pytest.mark.parametrize("sizes", [(5, 9, 10), *SIZES], ids=str)
@pytest.mark.parametrize("query_tokens", [16, 64, 128])
def test_layout_holds_every_token_once_and_fills_the_rows(sizes: tuple[int, int, int], query_tokens: int) -> None:
    grid = LatentGrid(*sizes)
    layout = kernel_layout(grid, query_tokens, torch.device("cpu"))
    runs = layout.order.split(layout.queries.count.tolist())
    expected = [flat(cells) for cells in reference_query_tiles(grid, query_tokens)]
    assert [sorted(run.tolist()) for run in runs] == [sorted(tokens) for tokens in expected]
    units = layout.unit_token.split(layout.units_of_tile.tolist())
    of_units = [sorted(token for token in unit.flatten().tolist() if token >= 0) for unit in units]
    assert of_units == [sorted(flat(tile)) for tile in reference_tiles(grid)]
    assert 1 <= len(layout.sample) <= len(layout.queries) // 8 + 1


def test_query_tiles_and_units_are_nearly_full_at_the_sizes_of_real_videos() -> None:
    """Wan and HunyuanVideo at 720p and 480p, CogVideoX: key tiles alone would fill 64 places to 71..86 %."""
    for sizes in [(21, 45, 80), (33, 45, 80), (21, 30, 52), (13, 30, 45)]:
        layout = kernel_layout(LatentGrid(*sizes), 128, torch.device("cpu"))
        assert len(layout.order) > 0.98 * 128 * len(layout.queries)
        assert len(layout.order) > 0.92 * layout.unit_token.numel()


def test_the_table_of_method_is_counted_from_the_layouts() -> None:
    """Rows filled, and FLOPs of deciding, for every model that METHOD.md lists."""
    text = Path(ripple_core.__file__).with_name("METHOD.md").read_text(encoding="utf-8")
    for name in ("cogvideox-5b", "wan-1.3b-480p", "wan-14b-720p", "hunyuan-720p"):
        size = VIDEO_SIZES[name]
        layout = kernel_layout(size.grid, KernelConfig().query_tokens, torch.device("cpu"))
        x = torch.empty(1, size.tokens, size.heads, size.head_dim, device="meta")
        call = ripple._Call(x, x, x, layout, KernelConfig(), 0.3, 1.0, size.text[0])
        # Of QK^T, which is half of dense attention.
        sample, deciding = (share / 2 for share in call._deciding_shares())
        queries = len(layout.order) / (layout.query_places * len(layout.queries))
        keys = len(layout.order) / layout.unit_token.numel()
        grid = f"{size.grid.frames}x{size.grid.height}x{size.grid.width}"
        shares = f"{queries:.1%} | {keys:.1%} | {deciding:.1%} | {sample:.2%}".replace("%", " %")
        assert f"| {grid} | {shares} |" in text


@pytest.mark.parametrize("sizes", [(5, 9, 10), (3, 7, 5), (1, 9, 10)], ids=str)
@pytest.mark.parametrize("text", [(0, 0), (2, 37)], ids=str)
def test_two_passes_decide_as_the_pytorch_path_does(
    sizes: tuple[int, int, int], text: tuple[int, int], device: torch.device
) -> None:
    budget = 0.8
    q, k, v = inputs(sizes, text, device=device)
    layout = kernel_layout(LatentGrid(*sizes), 64, device)
    tiles = layout.tiles.to(device)
    video = video_of(q, k, v, text[0])
    keys = prepare_keys(video, layout)
    queries = prepare_queries(video, layout, layout.queries)
    mass = tile_mass(video, keys, queries, layout, layout.queries, SCALE)
    choice = choose(video, mass, keys, queries, layout, SCALE, budget)
    is_text = torch.ones(q.shape[1], dtype=torch.bool).index_fill(0, layout.order.cpu().long() + text[0], False)
    for head in range(2):
        in_order = [x[0, layout.order + text[0], head] for x in (q, k, v)]
        key_summary = summarise_keys(*in_order[1:], tiles)
        query_summary = summarise_queries(in_order[0], tiles)
        torch.testing.assert_close(queries.cell_query[head], query_summary.cell_mean)
        torch.testing.assert_close(queries.mean_square[head], query_summary.mean_square)
        torch.testing.assert_close(keys.tile_key[head], key_summary.tile_key)
        torch.testing.assert_close(keys.tile_value[head], key_summary.tile_value)
        torch.testing.assert_close(keys.key_variance[:, head], key_summary.key_variance, rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(keys.value_deviation[:, head], key_summary.value_deviation, rtol=1e-3, atol=1e-4)
        decision = decide(query_summary, k[0, is_text, head], key_summary, tiles, SCALE, budget)
        agree = choice.treatment[head] == decision.treatment
        # Two treatments may cost the same but for rounding.
        assert agree.float().mean() > 0.99
        rows = agree.all(1)
        torch.testing.assert_close(choice.squared_error[head].sqrt()[rows], decision.error[rows], rtol=1e-3, atol=1e-5)
        num_keys = keys_taken(tiles).gather(0, decision.treatment).sum(1).int()
        assert torch.equal(choice.keys[head][rows], num_keys[rows])


@pytest.mark.usefixtures("reuses")
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("text", TEXTS, ids=str)
def test_output_equals_the_reference(sizes: tuple[int, int, int], text: tuple[int, int], device: torch.device) -> None:
    """With the last two text keys cropped where there are enough."""
    grid, budget = LatentGrid(*sizes), 0.8
    q, k, v = inputs(sizes, text, head_dim=12, device=device)
    if text[1] > 2:
        k, v = k[:, :-2], v[:, :-2]
    out, executed = triton_ripple_attention(q, k, v, grid, budget, SCALE, text[0], CONFIG)
    assert executed.backend == "triton"
    assert not executed.dense_heads
    for h in range(2):
        head = [x[0, :, h].cpu() for x in (q, k, v)]
        expected, _ = reference(head, grid, budget, text[0])
        torch.testing.assert_close(out[0, :, h].cpu().double(), expected, rtol=1e-4, atol=1e-5)


def reference(head: list[Tensor], grid: LatentGrid, budget: float, text_before: int = 0) -> tuple[Tensor, Tensor]:
    """The output in float64, and the treatments that it is for."""
    query_tiles = reference_query_tiles(grid, CONFIG.query_tokens, text_before)
    treatment = reference_objective(*head, grid, budget, SCALE, text_before, query_tiles).argmin(0)
    return reference_attention(*head, grid, treatment, SCALE, text_before, query_tiles), treatment


def test_every_treatment_is_taken_by_some_input_above() -> None:
    """Or the comparisons would say little."""
    q, k, v = (x[0, :, 0] for x in inputs((3, 7, 5), head_dim=12))
    treatments = [reference([q, k, v], LatentGrid(3, 7, 5), budget)[1] for budget in (0.4, 0.8, 20)]
    assert set(torch.stack(treatments).flatten().tolist()) == {0, 1, 2}


@pytest.mark.usefixtures("reuses")
@pytest.mark.parametrize("head_dim", [64, 80, 128])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_errs_as_sdpa_does_on_the_same_lists(
    dtype: torch.dtype, head_dim: int, device: torch.device
) -> None:
    """Relative error against float64 within 1.5 times that of torch's attention in the same dtype."""
    grid, budget, text = LatentGrid(3, 7, 5), 1.5, 5
    q, k, v = inputs((3, 7, 5), (0, text), heads=1, head_dim=head_dim, device=device, dtype=dtype)
    out, _ = triton_ripple_attention(q, k, v, grid, budget, SCALE / head_dim**0.5 * 4, config=CONFIG)
    scale = SCALE / head_dim**0.5 * 4
    head = [x[0, :, 0] for x in (q, k, v)]
    query_tiles = reference_query_tiles(grid, CONFIG.query_tokens)
    # Treatments that were taken, as rounded means may tip a pair over.
    layout = kernel_layout(grid, CONFIG.query_tokens, device)
    treatment = chosen_treatment(q, k, v, layout, scale, budget)
    expected = reference_attention(*(x.cpu() for x in head), grid, treatment, scale, 0, query_tiles)
    ours = (out[0, :, 0].cpu().double() - expected).norm()
    sdpa = torch.cat(
        [sdpa_on_list(head, cells, row, grid, scale) for cells, row in zip(query_tiles, treatment, strict=True)]
    )
    places = torch.tensor(flat(map(flat, query_tiles)))
    theirs = (sdpa.cpu().double() - expected[places]).norm()
    assert ours <= 1.5 * theirs


def chosen_treatment(q: Tensor, k: Tensor, v: Tensor, layout: KernelLayout, scale: float, budget: float) -> Tensor:
    video = video_of(q, k, v)
    keys, queries = prepare_keys(video, layout), prepare_queries(video, layout, layout.queries)
    mass = tile_mass(video, keys, queries, layout, layout.queries, scale)
    return choose(video, mass, keys, queries, layout, scale, budget).treatment[0].cpu()


def sdpa_on_list(head: list[Tensor], cells: list[list[int]], row: Tensor, grid: LatentGrid, scale: float) -> Tensor:
    """torch's attention of a query tile to its list of keys, means rounded to the dtype of the inputs."""
    q, k, v = head
    groups = [[token] for token in range(grid.num_tokens, len(k))]
    for tile, treatment in zip(reference_tiles(grid), row.tolist(), strict=True):
        tokens = flat(tile)
        groups += [[[token] for token in tokens], tile, [tokens]][treatment]
    means = [torch.stack([x[group].double().mean(0) for group in groups]).to(x.dtype) for x in (k, v)]
    bias = torch.tensor([len(group) for group in groups], device=q.device).log().to(q.dtype)
    query = q[flat(cells)]
    out = F.scaled_dot_product_attention(query[None], means[0][None], means[1][None], bias[None, None], scale=scale)
    return out[0]


@pytest.mark.usefixtures("reuses")
def test_any_strides_and_batches_give_the_same(device: torch.device) -> None:
    """As cut from one fused projection, with heads before tokens, and with channels apart."""
    grid = LatentGrid(3, 7, 5)
    one, other = (inputs((3, 7, 5), (0, 4), device=device) for _ in range(2))
    q, k, v = (torch.cat(pair) for pair in zip(one, other, strict=True))
    expected, _ = triton_ripple_attention(q, k, v, grid, 0.8, config=CONFIG)
    fused = torch.stack([q, k, v], dim=2).unbind(2)
    heads_first = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in (q, k, v)]
    channels_first = [x.transpose(1, 3).contiguous().transpose(1, 3) for x in (q, k, v)]
    for tensors in (fused, heads_first, channels_first):
        assert not tensors[0].is_contiguous()
        out, _ = triton_ripple_attention(*tensors, grid, 0.8, config=CONFIG)
        assert torch.equal(out, expected)
    alone = [triton_ripple_attention(*item, grid, 0.8, config=CONFIG)[0] for item in (one, other)]
    assert torch.equal(torch.cat(alone), expected)


@pytest.mark.usefixtures("reuses")
def test_heads_in_turn_give_the_same_as_heads_together(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    grid = LatentGrid(3, 7, 5)
    tensors = inputs((3, 7, 5), (1, 2), heads=3, device=device)
    expected, counted = triton_ripple_attention(*tensors, grid, 0.8, None, 1, CONFIG)
    monkeypatch.setattr(ripple, "_WORKSPACE", 0.0)
    out, executed = triton_ripple_attention(*tensors, grid, 0.8, None, 1, CONFIG)
    assert torch.equal(out, expected)
    assert torch.equal(executed.scores_H, counted.scores_H)


def test_log_sum_exp_is_that_of_the_scores(device: torch.device) -> None:
    """Checked where everything is exact."""
    grid = LatentGrid(3, 7, 5)
    q, k, v = inputs((3, 7, 5), (2, 3), device=device)
    layout = kernel_layout(grid, 64, device)
    video = video_of(q, k, v, 2)
    keys, queries = prepare_keys(video, layout), prepare_queries(video, layout, layout.queries)
    mass = tile_mass(video, keys, queries, layout, layout.queries, SCALE)
    choice = choose(video, mass, keys, queries, layout, SCALE, budget=0)
    log_sum_exp = torch.zeros(1, 2, q.shape[1], device=device)
    out = torch.empty_like(q)
    attend(video, keys, choice, make_lists(video, choice, layout), layout, CONFIG, SCALE, out, log_sum_exp)
    expected = (torch.einsum("bnhd,bmhd->bhnm", q, k) * SCALE).logsumexp(-1)
    of_video = slice(2, 2 + grid.num_tokens)
    torch.testing.assert_close(log_sum_exp[:, :, of_video], expected[:, :, of_video], rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(out[:, of_video], dense_attention(q, k, v, SCALE)[:, of_video], rtol=1e-4, atol=1e-5)


def test_noise_is_left_to_sdpa_after_the_sample(device: torch.device) -> None:
    """Bit for bit; deciding costs what the sample and the keys' means took, and is counted."""
    grid = LatentGrid(6, 16, 12)
    q, k, v = (torch.randn(1, grid.num_tokens + 3, 2, 16, device=device) for _ in range(3))
    out, executed = triton_ripple_attention(q, k, v, grid, 0.3, config=CONFIG)
    assert torch.equal(out, dense_attention(q, k, v))
    assert executed.dense_heads == {"little_to_save": 2}
    assert torch.all(executed.values_H == 1)
    smooth = inputs((6, 16, 12), (0, 3), device=device, noise=0.01)
    _, reused = triton_ripple_attention(*smooth, grid, 0.8, config=CONFIG)
    assert not reused.dense_heads
    assert 0 < float((executed.scores_H - 1).max()) < 0.5 * float((reused.scores_H - reused.values_H).min())


@pytest.mark.parametrize("poison", [float("nan"), float("inf")], ids=str)
@pytest.mark.parametrize("which", [0, 1, 2], ids=["query", "key", "value"])
def test_a_nan_or_infinity_does_what_it_does_in_sdpa(poison: float, which: int, device: torch.device) -> None:
    """In the head that holds it; the other head reuses as ever."""
    grid = LatentGrid(6, 8, 8)
    tensors = inputs((6, 8, 8), device=device, noise=0.01)
    tensors[which][0, 7, 1, 2] = poison
    out, executed = triton_ripple_attention(*tensors, grid, 2, config=CONFIG)
    torch.testing.assert_close(out[:, :, 1], dense_attention(*tensors)[:, :, 1], equal_nan=True, rtol=0, atol=0)
    assert out[:, :, 0].isfinite().all()
    assert executed.dense_heads == {"not_finite": 1}
    assert executed.values_H[0] < 1


def test_one_enormous_key_and_a_huge_scale_stay_finite(device: torch.device) -> None:
    grid = LatentGrid(6, 8, 8)
    q, k, v = inputs((6, 8, 8), device=device, noise=0.01)
    k[0, 100, 0] = 1e4 * q[0, :, 0].mean(0)
    out, _ = triton_ripple_attention(q, k, v, grid, 0.5, 30.0, config=CONFIG)
    expected = dense_attention(q, k, v, 30.0)
    assert out.isfinite().all()
    assert (out - expected).norm() < 0.5 * expected.norm()


def test_op_keeps_its_promises_to_the_compiler(device: torch.device) -> None:
    """Schema, strides and shapes of the fake implementation, and one graph around it."""
    q, k, v = inputs((3, 7, 5), (0, 2), device=device)
    arguments = (q, k, v, [3, 7, 5], 0.8, SCALE, 0, CONFIG.as_list())
    torch.library.opcheck(torch.ops.timeripple.ripple_attention.default, arguments)

    def around(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return 2 * torch.ops.timeripple.ripple_attention(q, k, v, *arguments[3:])[0]

    compiled = torch.compile(around, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(q, k, v), around(q, k, v))


def test_kernels_are_refused_with_every_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    assert backend.kernels_unsupported(torch.zeros(1, 4, 1, 64)) == ("the device is cpu",)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.delenv("CC", raising=False)
    words = ("C compiler", "Ampere", "float32", "256")
    reasons = backend._reasons(torch.device("cuda"), torch.float32, 256)
    assert [word in reason for word, reason in zip(words, reasons, strict=True)] == [True] * 4


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("head_dim", [64, 128])
def test_long_sequences_on_a_gpu_stay_within_the_budget(head_dim: int) -> None:
    """A grid that tiles do not divide, with text, in bfloat16."""
    grid, text = LatentGrid(13, 30, 45), 226
    q, k, v = inputs((13, 30, 45), (text, 0), heads=3, head_dim=head_dim, device="cuda", dtype=torch.bfloat16)
    out, executed = triton_ripple_attention(q, k, v, grid, 0.3, None, text)
    expected = dense_attention(q.float(), k.float(), v.float())
    assert not executed.dense_heads
    assert (out.float() - expected).norm() < 0.3 * expected.norm()
