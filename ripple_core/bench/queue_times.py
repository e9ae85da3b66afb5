"""What simulated fleets are made of: seconds measured on the built-in model, and a mix of models that is assumed."""

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel, Field

from ripple_core.bench.queue_sim import ServedModel

# Width, height and frames of the videos that are timed.
_SIZES = ((64, 64, 9), (96, 96, 17), (128, 128, 17))
_SEEDS = (1, 2)
_PROMPT = "a red circle moving left on a dark background"
_FILE_BYTES = 512 * 2**20
_CHUNK_BYTES = 16 * 2**20


class TimedSize(BaseModel):
    """Generations of one size with the built-in model, loaded already."""

    width: int
    height: int
    num_frames: int
    job_seconds: list[float]


class MeasuredTimes(BaseModel):
    """What was measured on this machine."""

    sizes: list[TimedSize]
    load_seconds: float = Field(description="Of the built-in model, its libraries imported and its files cached.")
    read_bytes_per_second: float = Field(description="Of a file just written, dropped from the page cache.")

    @property
    def job_seconds(self) -> list[float]:
        """Of all sizes."""
        return [seconds for size in self.sizes for seconds in size.job_seconds]


class AssumedModel(BaseModel):
    """A model of the assumed mix."""

    name: str
    share: float = Field(description="Of the jobs.")
    work: float = Field(description="A job takes so many times as long as one of the first model.")
    weights_bytes: float = Field(description="In 16 bits, text encoder included.")


# Names and weights of checkpoints that people run; what is asked for how often is a guess.
ASSUMED_MIX = [
    AssumedModel(name="1.3B", share=0.50, work=1, weights_bytes=14e9),
    AssumedModel(name="14B", share=0.25, work=3, weights_bytes=40e9),
    AssumedModel(name="14B image", share=0.12, work=3, weights_bytes=40e9),
    AssumedModel(name="5B", share=0.08, work=2, weights_bytes=21e9),
    AssumedModel(name="tuned 14B", share=0.04, work=3, weights_bytes=40e9),
    AssumedModel(name="rare 14B", share=0.01, work=3, weights_bytes=40e9),
]


def measure_times(on_generated: Callable[[], None] = lambda: None) -> MeasuredTimes:
    """Load the built-in model, generate a few videos with it, read a file."""
    from ripple_core.contract.models import find_model
    from ripple_core.contract.request import GenerateRequest
    from ripple_core.contract.validate import resolve
    from ripple_core.generate import generate_video, load_model

    spec = find_model("builtin")
    # The first time also imports what it needs.
    load_model(spec)
    began = time.monotonic()
    model = load_model(spec)
    load_seconds = time.monotonic() - began
    sizes = []
    with tempfile.TemporaryDirectory(prefix="ripple-bench-") as folder:
        for width, height, num_frames in _SIZES:
            seconds = []
            for seed in _SEEDS:
                asked = GenerateRequest(prompt=_PROMPT, width=width, height=height, num_frames=num_frames, seed=seed)
                seconds.append(generate_video(model, resolve(asked, spec), Path(folder)).latency_s.total)
                on_generated()
            sizes.append(TimedSize(width=width, height=height, num_frames=num_frames, job_seconds=seconds))
        rate = _read_rate(Path(folder) / "weights")
    return MeasuredTimes(sizes=sizes, load_seconds=load_seconds, read_bytes_per_second=rate)


def served_models(measured: MeasuredTimes, scale: float, load_seconds: float | None) -> list[ServedModel]:
    """The assumed mix on the measured times.

    Args:
        measured: on this machine.
        scale: a job of the first model takes so many times as long as one of the built-in model.
        load_seconds: of every cold start; None for the built-in model's, which moves next to no bytes, and the time to
            read the weights at the measured rate.
    """
    return [
        ServedModel(
            name=model.name,
            share=model.share,
            job_seconds=[seconds * scale * model.work for seconds in measured.job_seconds],
            load_seconds=(
                measured.load_seconds + model.weights_bytes / measured.read_bytes_per_second
                if load_seconds is None
                else load_seconds
            ),
        )
        for model in ASSUMED_MIX
    ]


def _read_rate(path: Path) -> float:
    """Bytes a second from the disk under this path, which is written and then read back."""
    chunk = os.urandom(_CHUNK_BYTES)
    with path.open("wb") as file:
        for _ in range(_FILE_BYTES // _CHUNK_BYTES):
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
        # Only pages that are on the disk can be dropped.
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    began = time.monotonic()
    with path.open("rb", buffering=0) as file:
        while file.read(_CHUNK_BYTES):
            pass
    return _FILE_BYTES / (time.monotonic() - began)
