"""One rank of test_parallel.py: python ulysses_rank.py RANK WORLD_SIZE RENDEZVOUS_FILE.

For two families, video and savings against the same run in one process; prints the names of those that agree.
"""

import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from diffusers import LTXVideoTransformer3DModel, WanTransformer3DModel

from ripple_core import TimeRippleConfig, apply_timeripple
from ripple_core.integrate.context_parallel import connect, split_over_ranks, ulysses_config

GRID, NUM_HEADS = (4, 3, 6), 4
FAMILIES = ("wan", "ltx")


def build(family: str) -> tuple[Any, dict[str, Any]]:
    torch.manual_seed(0)
    text = torch.randn(2, 6, 32)
    timestep = torch.full((2,), 500.0)
    if family == "wan":
        wan = WanTransformer3DModel(
            num_attention_heads=NUM_HEADS,
            attention_head_dim=12,
            in_channels=8,
            out_channels=8,
            text_dim=32,
            freq_dim=16,
            ffn_dim=32,
            num_layers=2,
            rope_max_seq_len=64,
        )
        latents = torch.randn(2, 8, GRID[0], 2 * GRID[1], 2 * GRID[2])
        return wan.eval(), {"hidden_states": latents, "timestep": timestep, "encoder_hidden_states": text}
    ltx = LTXVideoTransformer3DModel(
        in_channels=8,
        out_channels=8,
        num_attention_heads=NUM_HEADS,
        attention_head_dim=16,
        cross_attention_dim=64,
        num_layers=2,
        caption_channels=32,
    )
    frames, height, width = GRID
    inputs = {
        "hidden_states": torch.randn(2, frames * height * width, 8),
        "timestep": timestep,
        "encoder_hidden_states": text,
        "encoder_attention_mask": None,
        "num_frames": frames,
        "height": height,
        "width": width,
    }
    return ltx.eval(), inputs


def run(transformer: Any, inputs: dict[str, Any]) -> torch.Tensor:
    with torch.no_grad():
        return transformer(**inputs, return_dict=False)[0]


def compare(family: str, rank: int, world_size: int) -> None:
    transformer, inputs = build(family)
    alone = apply_timeripple(transformer, TimeRippleConfig(1.0, "channel"))
    alone.set_step(2, 5)
    expected = run(transformer, inputs)
    alone.remove()

    parallel = ulysses_config(world_size)
    connect(parallel, torch.device("cpu"))
    # One family has TimeRipple put on last, the other first; both orders work.
    if family == "wan":
        split_over_ranks(transformer, parallel)
    handle = apply_timeripple(transformer, TimeRippleConfig(1.0, "channel"))
    if family != "wan":
        split_over_ranks(transformer, parallel)
    handle.set_step(2, 5)
    torch.testing.assert_close(run(transformer, inputs), expected, rtol=1e-4, atol=1e-4)

    report, heads = handle.report(), NUM_HEADS // world_size
    assert report.fallbacks == {}
    assert report.savings > 0.1
    for layer, savings in report.by_layer_and_head.items():
        mine = alone.report().by_layer_and_head[layer][rank * heads : (rank + 1) * heads]
        torch.testing.assert_close(torch.tensor(savings), torch.tensor(mine))


def main(rank: int, world_size: int, rendezvous: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=rendezvous.as_uri(), rank=rank, world_size=world_size)
    for family in FAMILIES:
        compare(family, rank, world_size)
        sys.stdout.write(f"{family}\n")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
