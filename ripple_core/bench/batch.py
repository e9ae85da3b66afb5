"""How many videos a second come out of batches, against one by one, in the same run."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel

from ripple_core.bench.prompts import tuning_prompts
from ripple_core.bench.timing import Machine, this_machine
from ripple_core.contract.request import GenerateRequest, ResolvedRequest, ReuseSettings
from ripple_core.contract.validate import resolve
from ripple_core.generate import GeneratedFrames, LoadedModel
from ripple_core.generate.difference import psnr_db
from ripple_core.generate.run import generate_batch
from ripple_core.generate.watch import FramesJob


@dataclass(frozen=True)
class BatchRun:
    """What to measure.

    Attributes:
        sizes: width, height and number of frames of the videos.
        batch_sizes: each divides the largest, which is how many videos every one of them makes.
        num_inference_steps: of each video.
        aggressiveness: of mode `auto`.
        repeats: timed turns, after one that is not.
    """

    sizes: Sequence[tuple[int, int, int]]
    batch_sizes: Sequence[int]
    num_inference_steps: int
    aggressiveness: float
    repeats: int


class BatchRow(BaseModel):
    """One batch size at one size of videos; seconds are medians over the turns.

    Attributes:
        speedup: videos a second, over those of the run's smallest batch.
        denoise_seconds: of one video's share of the denoising loops.
        decode_seconds: of one video's share of the VAE.
        savings: of attention, over all videos.
        max_difference: of any pixel from the smallest batch's, in steps of 8 bits.
        worst_psnr_db: of any video to that of the smallest batch; none where all are equal.
    """

    width: int
    height: int
    num_frames: int
    batch_size: int
    videos_per_second: float
    slowest_videos_per_second: float
    fastest_videos_per_second: float
    speedup: float
    denoise_seconds: float
    decode_seconds: float
    savings: float
    max_difference: int
    worst_psnr_db: float | None


class BatchReport(BaseModel):
    """All rows, and on what they were measured."""

    machine: Machine
    model: str
    num_inference_steps: int
    aggressiveness: float
    repeats: int
    rows: list[BatchRow]


@dataclass(frozen=True)
class _Turn:
    """All videos made once in batches of one size."""

    seconds: float
    videos: list[GeneratedFrames]

    def share(self, stage: str, batch_size: int) -> float:
        """A video's share of a stage that its batch had together."""
        return statistics.mean(getattr(video.latency, stage) for video in self.videos) / batch_size


def measure_batches(
    run: BatchRun, model: LoadedModel, on_row: Callable[[BatchRow], None] = lambda _: None
) -> BatchReport:
    """Make the same videos in batches of every size, in turn; on_row gets each row as it is known.

    Raises:
        ValueError: when a batch size does not divide the largest.
    """
    if any(max(run.batch_sizes) % size for size in run.batch_sizes):
        raise ValueError(f"batch sizes are {run.batch_sizes}; each must divide the largest")
    rows: list[BatchRow] = []
    for size in run.sizes:
        requests = _requests(run, model, size)
        turns = [[_turn(model, requests, batch_size) for batch_size in run.batch_sizes] for _ in range(run.repeats + 1)]
        by_batch_size = dict(zip(run.batch_sizes, zip(*turns[1:], strict=True), strict=True))
        for batch_size, taken in by_batch_size.items():
            rows.append(_row(size, batch_size, taken, by_batch_size[min(run.batch_sizes)]))
            on_row(rows[-1])
    return BatchReport(
        machine=this_machine(model.device),
        model=model.spec.id,
        num_inference_steps=run.num_inference_steps,
        aggressiveness=run.aggressiveness,
        repeats=run.repeats,
        rows=rows,
    )


def _requests(run: BatchRun, model: LoadedModel, size: tuple[int, int, int]) -> list[ResolvedRequest]:
    prompts = tuning_prompts()
    width, height, num_frames = size
    return [
        resolve(
            GenerateRequest(
                prompt=prompts[seed % len(prompts)],
                seed=seed,
                width=width,
                height=height,
                num_frames=num_frames,
                num_inference_steps=run.num_inference_steps,
                reuse=ReuseSettings(aggressiveness=run.aggressiveness),
            ),
            model.spec,
        )
        for seed in range(max(run.batch_sizes))
    ]


def _turn(model: LoadedModel, requests: list[ResolvedRequest], batch_size: int) -> _Turn:
    began = time.perf_counter()
    videos: list[GeneratedFrames] = []
    for first in range(0, len(requests), batch_size):
        jobs = [FramesJob(request, lambda _: None, lambda: False) for request in requests[first : first + batch_size]]
        for ended in generate_batch(model, jobs):
            if not isinstance(ended, GeneratedFrames):
                raise ended
            videos.append(ended)
    return _Turn(time.perf_counter() - began, videos)


def _row(size: tuple[int, int, int], batch_size: int, turns: Sequence[_Turn], smallest: Sequence[_Turn]) -> BatchRow:
    videos, rates, baseline = turns[-1].videos, _rates(turns), _rates(smallest)
    pairs = [(one.frames, other.frames) for one, other in zip(smallest[-1].videos, videos, strict=True)]
    totals = [video.report.total for video in videos]
    return BatchRow(
        width=size[0],
        height=size[1],
        num_frames=size[2],
        batch_size=batch_size,
        videos_per_second=statistics.median(rates),
        slowest_videos_per_second=min(rates),
        fastest_videos_per_second=max(rates),
        speedup=statistics.median(rates) / statistics.median(baseline),
        denoise_seconds=statistics.median(turn.share("denoise", batch_size) for turn in turns),
        decode_seconds=statistics.median(turn.share("vae_decode", batch_size) for turn in turns),
        savings=1 - sum(total.executed_flops for total in totals) / sum(total.dense_flops for total in totals),
        max_difference=max(int(np.abs(one.astype(int) - other).max()) for one, other in pairs),
        worst_psnr_db=min((value for pair in pairs if (value := psnr_db(*pair)) is not None), default=None),
    )


def _rates(turns: Sequence[_Turn]) -> list[float]:
    return [len(turn.videos) / turn.seconds for turn in turns]
