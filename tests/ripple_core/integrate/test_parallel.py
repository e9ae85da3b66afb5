"""Context parallelism."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from diffusers import ContextParallelConfig, ParallelConfig

from ripple_core import TimeRippleConfig, apply_timeripple

RANKS = 2


def test_two_ulysses_ranks_give_the_video_and_the_savings_of_one(tmp_path: Path) -> None:
    """Over gloo; each rank counts its half of the heads."""
    script = Path(__file__).with_name("ulysses_rank.py")
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), str(rank), str(RANKS), str(tmp_path / "rendezvous")],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(RANKS)
    ]
    try:
        for process in processes:
            out, errors = process.communicate(timeout=120)
            assert process.returncode == 0, errors
            assert out.split()[-2:] == ["wan", "ltx"]
    finally:
        for process in processes:
            process.kill()


def test_ring_attention_is_refused(make_tiny: Any) -> None:
    tiny = make_tiny("Wan 2.1")
    apply_timeripple(tiny.pipe, TimeRippleConfig(1.0, "channel"))
    for block in tiny.pipe.transformer.blocks:
        block.attn1.processor._parallel_config = ParallelConfig(
            context_parallel_config=ContextParallelConfig(ring_degree=2)
        )
    with pytest.raises(ValueError, match=r"ring attention; use ContextParallelConfig\(ulysses_degree"):
        tiny()
