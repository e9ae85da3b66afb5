"""What videos take of a device's memory, and what to ask for instead where there is not enough."""

import ctypes
import gc
import logging
import math
import resource
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch

from ripple_core.contract.errors import OutOfMemory
from ripple_core.contract.models import ModelSpec
from ripple_core.contract.request import ResolvedRequest
from ripple_core.generate.load import LoadedModel
from ripple_core.generate.no_memory import is_out_of_memory

logger = logging.getLogger(__name__)

# Room that a video asked for by our advice leaves.
_MARGIN = 0.9


@dataclass(frozen=True)
class _Taken:
    """What one video took on top of the model: pixels of all its frames, bytes at the peak."""

    pixels: int
    peak_bytes: int


@dataclass(frozen=True)
class _Measured:
    """The smallest and the largest video that a pipeline has made so far."""

    smallest: _Taken
    largest: _Taken

    @property
    def bytes_per_pixel(self) -> float:
        """Of the line through both, or of the one there is; 0 where they tell nothing."""
        small, large = self.smallest, self.largest
        if large.pixels == small.pixels:
            return large.peak_bytes / large.pixels
        return max(large.peak_bytes - small.peak_bytes, 0) / (large.pixels - small.pixels)

    def reaches(self, pixels: int) -> bool:
        """Whether it tells of a video that large: what a single small one took is mostly not for its pixels."""
        return self.smallest.pixels < self.largest.pixels or 4 * self.largest.pixels >= pixels

    def needed_bytes(self, pixels: int) -> float:
        """What a video takes on top of the model."""
        return self.largest.peak_bytes + (pixels - self.largest.pixels) * self.bytes_per_pixel

    def fitting_pixels(self, free_bytes: float) -> float:
        """The largest video that fits by this count; what went well once counts as fitting."""
        more = (free_bytes - self.largest.peak_bytes) / self.bytes_per_pixel
        return self.largest.pixels + max(more, 0)


_MEASURED: WeakKeyDictionary[Any, _Measured] = WeakKeyDictionary()


@contextmanager
def out_of_memory_named(model: LoadedModel, request: ResolvedRequest) -> Iterator[None]:
    """Turn any error for lack of memory into one that says what would fit, and free what the failed run held.

    Raises:
        OutOfMemory: with the size that was asked for, and with smaller ones.
    """
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        if not is_out_of_memory(error):
            raise
        logger.warning("out of memory: %s", error)
        forget(error, model)
        raise OutOfMemory(_advice(model, request)) from error


def forget(error: BaseException, model: LoadedModel) -> None:
    """Free what an error's frames and a pipeline's caches hold; the pipeline is as before a run."""
    # They hold the tensors of the run for as long as somebody holds the error.
    traceback.clear_frames(error.__traceback__)
    model.pipe.vae.clear_cache()
    gc.collect()
    if model.device.type == "cuda":
        torch.cuda.empty_cache()
    else:
        _give_back()


def start_measuring(device: torch.device) -> int:
    """Begin a new peak, where the system allows it; the bytes in use now."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    # What malloc keeps of earlier runs would not show in what this one takes.
    _give_back()
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _of_process("VmRSS") or 0


def peak_memory_bytes(device: torch.device) -> int:
    """Most bytes in use since `start_measuring`: the GPU allocator's, or those of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return _of_process("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def remember(model: LoadedModel, request: ResolvedRequest, peak_bytes: int) -> None:
    """Keep what a video took on top of what was in use before, for advice to come."""
    taken = _Taken(_pixels(request), peak_bytes)
    known = _MEASURED.get(model.pipe, _Measured(taken, taken))
    smallest = taken if taken.pixels <= known.smallest.pixels else known.smallest
    largest = taken if taken.pixels >= known.largest.pixels else known.largest
    _MEASURED[model.pipe] = _Measured(smallest, largest)


def _give_back() -> None:
    """Let malloc return what is free to the system; glibc alone can."""
    with suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _pixels(request: ResolvedRequest) -> int:
    return request.width * request.height * request.num_frames


def _advice(model: LoadedModel, request: ResolvedRequest) -> str:
    """Memory grows with pixels x frames: attention holds no matrix of scores, and the VAE decodes in pieces."""
    asked, pixels = f"Out of memory at {request.width}x{request.height}, {request.num_frames} frames", _pixels(request)
    measured, free = _MEASURED.get(model.pipe), _free_bytes(model.device)
    if measured is not None and measured.reaches(pixels) and measured.bytes_per_pixel > 0 and free is not None:
        needed, share = measured.needed_bytes(pixels), measured.fitting_pixels(_MARGIN * free) / pixels
        # What fits by this count has just not fitted: memory was in pieces, or others took some.
        if share < 1:
            smaller = _smaller(model.spec, request, share)
            return f"{asked}: it takes about {needed / 1e9:.2g} GB, and {free / 1e9:.2g} GB are free. {smaller}"
    return f"{asked}. {_smaller(model.spec, request, 0.5)}"


def _smaller(spec: ModelSpec, request: ResolvedRequest, share: float) -> str:
    """The nearest requests with at most this share of the pixels."""
    step = spec.size_multiple
    width, height = (max(int(size * math.sqrt(share)) // step, 1) * step for size in (request.width, request.height))
    smaller = f"{width}x{height} with {request.num_frames} frames"
    most = request.num_frames * share
    frames = spec.nearest_num_frames(most)
    if frames > most:
        frames -= spec.frame_multiple
    if frames < 1:
        return f"Ask for a smaller size, such as {smaller}."
    return f"Ask for {frames} frames at this size, or for {smaller}."


def _free_bytes(device: torch.device) -> int | None:
    """What a run may take now; None where the system does not say."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    limits = [_kibibytes(Path("/proc/meminfo"), "MemAvailable"), _free_of_container()]
    for limit, used in ((resource.RLIMIT_AS, "VmSize"), (resource.RLIMIT_DATA, "VmData")):
        most, _ = resource.getrlimit(limit)
        in_use = _of_process(used)
        limits.append(None if most == resource.RLIM_INFINITY or in_use is None else max(most - in_use, 0))
    return min((limit for limit in limits if limit is not None), default=None)


def _free_of_container() -> int | None:
    """By version 2 of Linux's control groups."""
    with suppress(OSError, ValueError):
        most, used = (int(Path(f"/sys/fs/cgroup/memory.{name}").read_text("ascii")) for name in ("max", "current"))
        return max(most - used, 0)
    return None


def _of_process(name: str) -> int | None:
    return _kibibytes(Path("/proc/self/status"), name)


def _kibibytes(path: Path, name: str) -> int | None:
    """A line such as `VmRSS: 12 kB`, in bytes."""
    with suppress(OSError):
        for line in path.read_text("ascii").splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    return None
