"""Times calls, and says on what."""

import shlex
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from pydantic import BaseModel

from ripple_core.generate.load import device_name


class Machine(BaseModel):
    """What a record was measured on, when, and by which command."""

    device: str
    driver: str | None
    torch_version: str
    triton_version: str | None
    cudnn_version: int | None
    date: str
    command: str


def this_machine(device: torch.device) -> Machine:
    """As it is now."""
    command = [Path(sys.argv[0]).name, *sys.argv[1:]]
    return Machine(
        device=device_name(device),
        driver=_driver() if device.type == "cuda" else None,
        torch_version=torch.__version__,
        triton_version=_version("triton"),
        cudnn_version=torch.backends.cudnn.version() if device.type == "cuda" else None,
        date=datetime.now(UTC).date().isoformat(),
        command=shlex.join(command),
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _driver() -> str | None:
    lines = Path("/proc/driver/nvidia/version")
    return lines.read_text(encoding="utf-8").splitlines()[0] if lines.exists() else None


class Milliseconds(BaseModel):
    """Of one call, over repeats."""

    median: float
    fastest: float
    slowest: float


def interleaved(calls: Sequence[Callable[[], object]], repeats: int, device: torch.device) -> list[Milliseconds]:
    """Times of each, taken in turn after one warm-up."""
    times: list[list[float]] = [[] for _ in calls]
    for repeat in range(repeats + 1):
        for call, taken in zip(calls, times, strict=True):
            _synchronise(device)
            began = time.perf_counter()
            call()
            _synchronise(device)
            if repeat:
                taken.append(1e3 * (time.perf_counter() - began))
    return [Milliseconds(median=statistics.median(taken), fastest=min(taken), slowest=max(taken)) for taken in times]


def peak_bytes(call: Callable[[], object], device: torch.device) -> int | None:
    """Most of the GPU's memory that tensors hold during a call, its inputs included; None on a CPU."""
    if device.type != "cuda":
        return None
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    call()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device)


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
