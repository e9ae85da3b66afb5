"""Finds the baselines that cost as much as a TimeRipple variant did.

What can't be matched exactly is rounded in the baseline's favour: it never executes less, except where its own
coarsest setting leaves no choice.
"""

import math
from statistics import mean

from ripple_core.attention import LatentGrid, StepSchedule
from ripple_core.bench.block_sparse import num_cells
from ripple_core.bench.render import Clip, ClipRecord, Renderer
from ripple_core.bench.search import bisect
from ripple_core.bench.step_cache import taylor_seer_full_steps
from ripple_core.bench.variants import Variant, block_sparse, fewer_steps, first_block, taylor

_LOWEST_THRESHOLD, _HIGHEST_THRESHOLD = 1e-3, 1.0
_TAYLOR_WARM_UP = 3


def matched_baselines(
    renderer: Renderer, dense: list[Clip], target: list[Clip], grid: LatentGrid, schedule: StepSchedule
) -> list[Variant]:
    """All baselines at the cost of the target clips.

    The block methods match executed attention FLOPs, step caches the transformer's total FLOPs, and fewer steps once
    the one and once the other: in a small model attention is a small part of the work, in a large one nearly all.

    Args:
        renderer: the search for FirstBlockCache's threshold renders the first clip a few times.
        dense: the dense clips.
        target: the clips of the TimeRipple variant to match.
        grid: of the video's tokens.
        schedule: of the variant to match; the block methods get the same dense steps.
    """
    whole = [clip.record for clip in dense]
    wanted = [clip.record for clip in target]
    attention = _ratio(wanted, whole, "executed_attention_flops")
    total = _ratio(wanted, whole, "total_flops")
    steps = whole[0].num_inference_steps
    reusing = 1 - wanted[0].dense_steps / steps
    # Share of a dense call that a reusing one may take for the video to come to the target.
    share = max(1 - (1 - attention) / reusing, 0.0) if reusing else 1.0
    by_attention, by_total = (max(math.ceil(ratio * steps), 1) for ratio in (attention, total))
    fewer = [fewer_steps(by_total, "total")]
    if by_attention != by_total:
        fewer.append(fewer_steps(by_attention, "attention"))
    return [
        block_sparse(_kept(grid, share, pooled=False), "drop", schedule),
        block_sparse(_kept(grid, share, pooled=True), "pool", schedule),
        first_block(_threshold(renderer, total * whole[0].total_flops)),
        _taylor_of_cost(steps, total),
        *fewer,
    ]


def _ratio(wanted: list[ClipRecord], whole: list[ClipRecord], name: str) -> float:
    return mean(getattr(record, name) for record in wanted) / mean(getattr(record, name) for record in whole)


def _kept(grid: LatentGrid, share: float, pooled: bool) -> int:
    """Fewest cells that take at least the share of a dense call, the cost of choosing them included."""
    cells = num_cells(grid)
    per_pooled_cell = 1 / grid.num_tokens if pooled else 0.0
    deciding = (cells / grid.num_tokens) ** 2 / 2
    kept = (share - deciding - cells * per_pooled_cell) / (1 / cells - per_pooled_cell)
    return min(max(math.ceil(kept), 1), cells)


def _taylor_of_cost(num_steps: int, total: float) -> Variant:
    """The setting whose full steps come closest to the target from above."""
    wanted = math.ceil(total * num_steps)
    choices = [
        (taylor_seer_full_steps(num_steps, warm_up, interval), -interval, warm_up)
        for warm_up in range(_TAYLOR_WARM_UP, num_steps + 1)
        for interval in range(2, num_steps + 2)
    ]
    _, interval, warm_up = min(choice for choice in choices if choice[0] >= min(wanted, num_steps))
    return taylor(warm_up, -interval)


def _threshold(renderer: Renderer, wanted_flops: float) -> float:
    """Highest threshold found by bisection whose first clip still executes the wanted FLOPs."""

    def dear_enough(threshold: float) -> bool:
        return renderer.one(first_block(threshold), 0).record.total_flops >= wanted_flops

    return bisect(dear_enough, inside=_LOWEST_THRESHOLD, outside=_HIGHEST_THRESHOLD)
