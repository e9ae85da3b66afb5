"""Compiles every kernel for a GPU that need not be there, and prints what the assembler says: JSON, one line a kernel.

Run by test_compile.py, as Triton decides when it is imported whether it compiles or interprets.

Usage: compile_for.py COMPUTE_CAPABILITY HEAD_DIM DTYPE TEXT
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ.pop("TRITON_INTERPRET", None)
os.environ["TRITON_CACHE_DIR"] = tempfile.mkdtemp(prefix="triton-")

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from ripple_core.attention import LatentGrid
from ripple_core.attention.kernels.config import default_config
from ripple_core.attention.kernels.ripple import triton_ripple_attention


class NoGpu:
    """A driver for compiling only."""

    def __init__(self, capability: int) -> None:
        self._target = GPUTarget("cuda", capability, 32)

    def get_current_target(self) -> GPUTarget:
        return self._target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, _: int) -> int:
        return 0


def resource_usage(cubin: bytes) -> dict[str, int]:
    """Registers a thread, and bytes of its stack (spills lie there)."""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        text = subprocess.run(
            [tool, "--dump-resource-usage", file.name], check=True, capture_output=True, text=True
        ).stdout
    return {name: int(re.search(rf"{key}:(\d+)", text)[1]) for name, key in (("registers", "REG"), ("stack", "STACK"))}


def main(capability: int, head_dim: int, dtype: str, text: int) -> None:
    compiled: dict[str, Any] = {}
    launch = JITFunction.run

    def compile_only(self: Any, *args: Any, grid: Any, **kwargs: Any) -> Any:
        compiled[self.fn.__name__] = launch(self, *args, grid=grid, **kwargs | {"warmup": True})

    JITFunction.run = compile_only
    driver.set_active(NoGpu(capability))
    grid = LatentGrid(6, 10, 12)
    q, k, v = (torch.zeros(1, grid.num_tokens + text, 2, head_dim, dtype=getattr(torch, dtype)) for _ in range(3))
    # Nothing runs: what is "computed" is whatever the memory held.
    config = default_config((capability // 10, capability % 10))
    triton_ripple_attention(q, k, v, grid, 0.5, config=config)
    for name, kernel in compiled.items():
        row = {"kernel": name, "shared": kernel.metadata.shared, "num_warps": kernel.metadata.num_warps}
        row |= resource_usage(kernel.asm["cubin"])
        row["waits_with_copies_in_flight"] = len(re.findall(r"cp\.async\.wait_group\s+[1-9]", kernel.asm["ptx"]))
        row |= {op: len(re.findall(op, kernel.asm["ptx"])) for op in ("wgmma.mma_async", "mma.sync", "cp.async")}
        sys.stdout.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
