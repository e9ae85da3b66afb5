"""Kernels compile for GPUs that are not there; what runs on them cannot be tested here."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("compile_for.py")
# Shared memory that a program may have, bytes: consumer GPUs, and the large ones.
CONSUMER, HOPPER = 99 * 1024, 227 * 1024


@pytest.mark.parametrize(
    ("capability", "head_dim", "dtype", "text", "shared"),
    [
        (90, 128, "bfloat16", 20, HOPPER),
        (90, 64, "float16", 0, HOPPER),
        (86, 128, "float16", 20, CONSUMER),
        (100, 128, "bfloat16", 0, HOPPER),
        (120, 128, "bfloat16", 20, CONSUMER),
    ],
)
def test_kernels_compile_without_spilling(capability: int, head_dim: int, dtype: str, text: int, shared: int) -> None:
    """Within the GPU's shared memory, and on Hopper with its asynchronous matrix products where the time goes."""
    command = [sys.executable, str(SCRIPT), str(capability), str(head_dim), dtype, str(text)]
    lines = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout.splitlines()
    kernels = {row["kernel"]: row for row in map(json.loads, lines)}
    assert len(kernels) == 7
    for row in kernels.values():
        # A few dozen bytes of stack outside the inner loop are no spill that matters.
        assert row["stack"] <= 64, row
        assert row["shared"] <= shared, row
    if capability == 90:
        assert kernels["_attend"]["wgmma.mma_async"] > 0
        assert kernels["_cell_mass"]["wgmma.mma_async"] > 0
        # Text, units, cells and tiles: the next block's keys and values are under way while one is worked on.
        assert kernels["_attend"]["waits_with_copies_in_flight"] == 4
