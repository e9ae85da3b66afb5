"""What simulated fleets are made of: seconds measured on the built-in model, and a mix of models that is assumed."""

import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, Field, TypeAdapter

from ripple_core.bench.queue_sim import ServedModel

if TYPE_CHECKING:
    from ripple_core.generate import LoadedModel

# Width, height and frames of the videos that are timed.
_SIZES = ((64, 64, 9), (96, 96, 17), (128, 128, 17))
_SEEDS = (1, 2)
# A quarter of the model's own: how sizes compare is what matters, as their scale is assumed anyway.
_STEPS = 5
_PROMPT = "a red circle moving left on a dark background"
_FILE_BYTES = 512 * 2**20
_CHUNK_BYTES = 16 * 2**20


class TimedSize(BaseModel):
    """Dense generations of one size with the built-in model, loaded already."""

    width: int
    height: int
    num_frames: int
    num_inference_steps: int
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


def measure_times() -> MeasuredTimes:
    """Load the built-in model, generate a few videos with it on one core, read a file."""
    import torch

    from ripple_core.contract.models import find_model
    from ripple_core.generate import load_model

    spec = find_model("builtin")
    # Threads that wait for each other take many times as long when something else runs.
    torch.set_num_threads(1)
    # The first load and the first video also import what they need.
    _job_seconds(load_model(spec), *_SIZES[0], seed=0)
    began = time.monotonic()
    model = load_model(spec)
    load_seconds = time.monotonic() - began
    sizes = [
        TimedSize(
            width=width,
            height=height,
            num_frames=num_frames,
            num_inference_steps=_STEPS,
            job_seconds=[_job_seconds(model, width, height, num_frames, seed) for seed in _SEEDS],
        )
        for width, height, num_frames in _SIZES
    ]
    return MeasuredTimes(sizes=sizes, load_seconds=load_seconds, read_bytes_per_second=_read_rate())


def read_models(path: Path) -> list[ServedModel]:
    """A fleet's models from a JSON file.

    Raises:
        ValidationError: when it holds anything but a list of models.
        OSError: when it cannot be read.
    """
    return TypeAdapter(Annotated[list[ServedModel], Field(min_length=1)]).validate_json(path.read_bytes())


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


def _job_seconds(model: "LoadedModel", width: int, height: int, num_frames: int, seed: int) -> float:
    from ripple_core.contract.request import GenerateRequest, ReuseSettings
    from ripple_core.contract.validate import resolve
    from ripple_core.generate import generate_video

    asked = GenerateRequest(
        prompt=_PROMPT,
        width=width,
        height=height,
        num_frames=num_frames,
        num_inference_steps=_STEPS,
        seed=seed,
        reuse=ReuseSettings(mode="dense"),
    )
    with tempfile.TemporaryDirectory(prefix="ripple-bench-") as folder:
        return generate_video(model, resolve(asked, model.spec), Path(folder)).latency_s.total


def _read_rate() -> float:
    """Bytes a second from the disk under the folder for temporary files, which is written to and then read back."""
    chunk = os.urandom(_CHUNK_BYTES)
    with tempfile.NamedTemporaryFile(prefix="ripple-bench-") as file:
        for _ in range(_FILE_BYTES // _CHUNK_BYTES):
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
        # Only pages that are on the disk can be dropped.
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        began = time.monotonic()
        with Path(file.name).open("rb", buffering=0) as again:
            while again.read(_CHUNK_BYTES):
                pass
        return _FILE_BYTES / (time.monotonic() - began)
