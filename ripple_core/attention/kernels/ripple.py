"""Mode `ripple` on Triton kernels: prepares, chooses and attends; heads with little to save go to torch's own kernel.

Shapes: B batch, N query tokens, M key tokens, H heads, D head_dim; G heads, counted through all batch items.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ripple_core.attention.decide import WORTH_IT, choosing_flops, preparing_flops
from ripple_core.attention.dense import dense_attention
from ripple_core.attention.grid import LatentGrid
from ripple_core.attention.kernels.attend import attend
from ripple_core.attention.kernels.choose import Choice, Lists, choose, make_lists
from ripple_core.attention.kernels.config import KernelConfig, kernel_config
from ripple_core.attention.kernels.layout import KernelLayout, QueryTiles, kernel_layout
from ripple_core.attention.kernels.mass import tile_mass
from ripple_core.attention.kernels.prepare import PreparedKeys, Video, prepare_keys, prepare_queries
from ripple_core.attention.savings import Executed

# A head whose sampled query tiles take more than this share of the pairs runs dense without further deciding.
_SAMPLE_WORTH_IT = 0.9
# Memory for means, masses and lists, as a share of that of query, key, value and output. As many heads are worked on
# together as fit into it.
_WORKSPACE = 0.15
_REASONS = (None, "little_to_save", "not_finite")


@torch.no_grad()
def triton_ripple_attention(
    query_BNHD: Tensor,
    key_BMHD: Tensor,
    value_BMHD: Tensor,
    grid: LatentGrid,
    budget: float,
    scale: float | None = None,
    text_before: int = 0,
    config: KernelConfig | None = None,
) -> tuple[Tensor, Executed]:
    """As `ripple_attention`, which states the meaning; bfloat16 or float16 on CUDA.

    Tensors may have any strides, but are copied where channels do not lie side by side. On a CPU this runs under
    Triton's interpreter only.

    Args:
        config: of the attention kernel; the table's by default.
    """
    query_BNHD, key_BMHD, value_BMHD = (
        x if x.stride(-1) == 1 else x.contiguous() for x in (query_BNHD, key_BMHD, value_BMHD)
    )
    scale = query_BNHD.shape[-1] ** -0.5 if scale is None else scale
    config = config or kernel_config(query_BNHD.device, query_BNHD.shape[3], query_BNHD.shape[1])
    sizes = [grid.frames, grid.height, grid.width]
    out_BNHD, ran_G3 = _ripple_attention_op(
        query_BNHD, key_BMHD, value_BMHD, sizes, budget, scale, text_before, config.as_list()
    )
    scores_BH, values_BH, reason_BH = ran_G3.view(len(query_BNHD), -1, 3).unbind(-1)
    dense_heads_B = [Counter(filter(None, (_REASONS[int(number)] for number in item))) for item in reason_BH.tolist()]
    return out_BNHD, Executed(scores_BH, values_BH, dense_heads_B, backend="triton")


@torch.no_grad()
def decide_only(
    query_BNHD: Tensor,
    key_BMHD: Tensor,
    value_BMHD: Tensor,
    grid: LatentGrid,
    budget: float,
    text_before: int = 0,
) -> None:
    """The first two passes, up to the lists, for whoever wants to know what they take."""
    config = kernel_config(query_BNHD.device, query_BNHD.shape[3], query_BNHD.shape[1])
    layout = kernel_layout(grid, config.query_tokens, query_BNHD.device)
    scale = query_BNHD.shape[-1] ** -0.5
    call = _Call(query_BNHD, key_BMHD, value_BMHD, layout, config, budget, scale, text_before)
    with torch.cuda.device_of(query_BNHD):
        for video in call.parts():
            call.plan(video)


@dataclass(frozen=True)
class _Plan:
    """What to do for some heads; video has those that run dense marked, `ran` is as `_ripple_attention_op` gives it."""

    video: Video
    keys: PreparedKeys
    choice: Choice
    lists: Lists
    ran: Tensor


@torch.library.custom_op("timeripple::ripple_attention", mutates_args=())
def _ripple_attention_op(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    grid: list[int],
    budget: float,
    scale: float,
    text_before: int,
    config: list[int],
) -> tuple[Tensor, Tensor]:
    """The output, and on the CPU what ran of each head ``[G, 3]``: shares of QK^T and of PV, number of a reason."""
    with torch.cuda.device_of(query):
        layout = kernel_layout(LatentGrid(*grid), config[0], query.device)
        return _Call(query, key, value, layout, KernelConfig(*config), budget, scale, text_before).run()


@_ripple_attention_op.register_fake
def _(query: Tensor, *_: object) -> tuple[Tensor, Tensor]:
    heads = query.shape[0] * query.shape[2]
    return torch.empty_like(query), torch.empty(heads, 3, dtype=torch.float64, device="cpu")


@dataclass(frozen=True)
class _Call:
    """One call; query ``[B, N, H, D]``, key and value ``[B, M, H, D]``."""

    query: Tensor
    key: Tensor
    value: Tensor
    layout: KernelLayout
    config: KernelConfig
    budget: float
    scale: float
    text_before: int

    @property
    def num_video(self) -> int:
        """Video tokens."""
        return self.layout.order.numel()

    def run(self) -> tuple[Tensor, Tensor]:
        """See `_ripple_attention_op`."""
        out = torch.empty_like(self.query)
        ran = [self._attend(video, out) for video in self.parts()]
        # The one wait for the device in a call; what runs dense is queued after it.
        ran_G3 = torch.cat(ran).cpu()
        dense_G = ran_G3[:, 2] > 0
        if dense_G.all():
            strides = out.stride()
            del out
            return _laid_out(strides, dense_attention(self.query, self.key, self.value, self.scale)), ran_G3
        for rows in self._text_rows():
            out[:, rows] = dense_attention(self.query[:, rows], self.key, self.value, self.scale)
        # These compute their text once more.
        ran_G3[dense_G, :2] += 1 - self.num_video / self.query.shape[1]
        # One by one: cuDNN builds a plan for every new number of heads, which takes longer than many heads do.
        for item, head in dense_G.view(len(out), -1).nonzero().tolist():
            at = (slice(item, item + 1), slice(None), slice(head, head + 1))
            out[at] = dense_attention(self.query[at], self.key[at], self.value[at], self.scale)
        return out, ran_G3

    def parts(self) -> Iterator[Video]:
        """As many heads at a time as the workspace has room for."""
        heads = self.query.shape[0] * self.query.shape[2]
        room = _WORKSPACE * 2 * (self.query.nbytes + self.key.nbytes)
        at_once = min(max(int(room / _bytes_of_a_head(self.layout, self.query)), 1), heads)
        for first in range(0, heads, at_once):
            groups = min(at_once, heads - first)
            skip = torch.zeros(groups, dtype=torch.int8, device=self.query.device)
            yield Video(self.query, self.key, self.value, self.text_before, first, groups, skip)

    def _attend(self, video: Video, out: Tensor) -> Tensor:
        """Write the video's rows of some heads that reuse; what ran of each ``[G, 3]``, on the device."""
        plan = self.plan(video)
        attend(plan.video, plan.keys, plan.choice, plan.lists, self.layout, self.config, self.scale, out)
        return plan.ran

    def plan(self, video: Video) -> _Plan:
        """Prepare and choose: first by a sample, then for heads in which that leaves hope."""
        keys = prepare_keys(video, self.layout)
        sample = self._choose(video, keys, self.layout.sample)
        is_hopeless_G = self._pairs(sample, self.layout.sample) > _SAMPLE_WORTH_IT
        video = replace(video, skip=is_hopeless_G.to(torch.int8))
        choice = self._choose(video, keys, self.layout.queries)
        share_G = self._pairs(choice, self.layout.queries)
        is_finite_G = torch.where(is_hopeless_G, _is_finite(sample), _is_finite(choice))
        is_dense_G = is_hopeless_G | ~is_finite_G | (share_G > WORTH_IT)
        video = replace(video, skip=is_dense_G.to(torch.int8))
        share_G = torch.where(is_dense_G, 1.0, share_G)
        deciding_G = torch.where(is_hopeless_G, *self._deciding_shares())
        reason_G = torch.where(is_dense_G, torch.where(is_finite_G, 1.0, 2.0), 0.0)
        ran = torch.stack([share_G + deciding_G, share_G, reason_G.double()], dim=1)
        return _Plan(video, keys, choice, make_lists(video, choice, self.layout), ran)

    def _choose(self, video: Video, keys: PreparedKeys, chosen: QueryTiles) -> Choice:
        queries = prepare_queries(video, self.layout, chosen)
        mass = tile_mass(video, keys, queries, self.layout, chosen, self.scale)
        return choose(video, mass, keys, queries, self.layout, self.scale, self.budget)

    def _pairs(self, choice: Choice, chosen: QueryTiles) -> Tensor:
        """Share of the pairs that are computed, text included, when all query tiles are like these ``[G]``."""
        text_keys, text_queries = self.key.shape[1] - self.num_video, self.query.shape[1] - self.num_video
        of_video_G = ((choice.keys.double() + text_keys) * chosen.count).sum(-1) * (self.num_video / chosen.num_places)
        return (of_video_G + text_queries * self.key.shape[1]) / (self.query.shape[1] * self.key.shape[1])

    def _deciding_shares(self) -> tuple[float, float]:
        """FLOPs of deciding by a sample alone, and of both; a share of QK^T."""
        text, head_dim = self.key.shape[1] - self.num_video, self.query.shape[3]
        sample, full = (
            choosing_flops(chosen.num_rows, len(chosen), self.layout.tiles, text, head_dim)
            + preparing_flops(chosen.num_places, 0, head_dim)
            for chosen in (self.layout.sample, self.layout.queries)
        )
        sample += preparing_flops(0, self.num_video, head_dim)
        scores = 2 * self.query.shape[1] * self.key.shape[1] * head_dim
        return sample / scores, (sample + full) / scores

    def _text_rows(self) -> Iterator[slice]:
        for first, last in ((0, self.text_before), (self.text_before + self.num_video, self.query.shape[1])):
            if first < last:
                yield slice(first, last)


def _is_finite(choice: Choice) -> Tensor:
    return choice.squared_error.isfinite().all(-1)


def _bytes_of_a_head(layout: KernelLayout, query: Tensor) -> int:
    """What the passes hold of one head at the same time."""
    head_dim, size = query.shape[3], query.element_size()
    tiles, query_tiles, rows = len(layout.tile_start), len(layout.queries), layout.queries.num_rows
    means = size * head_dim * (rows + 2 * tiles * (layout.cells + 1)) + 4 * head_dim * (2 * tiles + 2 * query_tiles)
    masses = size * rows * tiles + 4 * rows * tiles * layout.cells // 64 + 4 * query_tiles * tiles
    lists = query_tiles * (3 * tiles + 2 * len(layout.unit_token))
    return means + masses + lists


def _laid_out(strides: tuple[int, ...], x: Tensor) -> Tensor:
    """With the strides that a compiled graph was promised; nothing to do unless a kernel laid its output out oddly."""
    return x if x.stride() == strides else x.new_empty_strided(x.shape, strides).copy_(x)
