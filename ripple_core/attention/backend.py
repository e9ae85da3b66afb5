"""Which implementation of mode `ripple` a call gets: Triton kernels where they can run, PyTorch elsewhere."""

import importlib.util
import logging
import os
import shutil
import sysconfig
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from ripple_core.attention.grid import LatentGrid
from ripple_core.attention.ripple import ripple_attention
from ripple_core.attention.savings import Executed

logger = logging.getLogger(__name__)

_OLDEST_CAPABILITY = (8, 0)
_LARGEST_HEAD_DIM = 128


def kernels_unsupported(query: Tensor) -> tuple[str, ...]:
    """Every reason why Triton kernels cannot take a call with this query; none means that they can."""
    return _reasons(query.device, query.dtype, query.shape[-1])


@lru_cache(maxsize=64)
def _reasons(device: torch.device, dtype: torch.dtype, head_dim: int) -> tuple[str, ...]:
    if device.type != "cuda":
        return (f"the device is {device.type}",)
    reasons = []
    if importlib.util.find_spec("triton") is None:
        reasons.append("triton is not installed")
    if not (os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")):
        reasons.append("there is no C compiler (gcc or clang), which Triton needs")
    if not (Path(sysconfig.get_paths()["include"]) / "Python.h").exists():
        reasons.append("Python's headers (python3-dev), which Triton needs, are missing")
    if torch.cuda.get_device_capability(device) < _OLDEST_CAPABILITY:
        reasons.append("the GPU is older than Ampere (compute capability 8.0)")
    if dtype not in (torch.bfloat16, torch.float16):
        reasons.append(f"the dtype is {dtype}, not bfloat16 or float16")
    if head_dim > _LARGEST_HEAD_DIM:
        reasons.append(f"head_dim is {head_dim}, above {_LARGEST_HEAD_DIM}")
    if reasons:
        logger.warning("mode ripple runs on PyTorch instead of Triton, which is slow on a GPU: %s", "; ".join(reasons))
    return tuple(reasons)


def ripple_on_best_backend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    grid: LatentGrid,
    budget: float,
    scale: float | None = None,
    text_before: int = 0,
) -> tuple[Tensor, Executed]:
    """`ripple_attention`, on Triton where it can run; `Executed.backend` says which it was."""
    if kernels_unsupported(query):
        return ripple_attention(query, key, value, grid, budget, scale, text_before)
    from ripple_core.attention.kernels.ripple import triton_ripple_attention

    return triton_ripple_attention(query, key, value, grid, budget, scale, text_before)
