"""Several requests in one call of the pipeline, against the same requests one by one."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import UniPCMultistepScheduler

from ripple_core.contract.errors import GenerationCancelled, GenerationFailed, InvalidOutput, OutOfMemory, RippleError
from ripple_core.contract.job import Progress
from ripple_core.contract.metrics import JobMetrics, Retry
from ripple_core.contract.request import ResolvedRequest
from ripple_core.generate import LoadedModel, VideoJob, generate_frames, generate_videos
from ripple_core.generate.difference import psnr_db
from ripple_core.generate.run import GeneratedFrames, generate_batch
from ripple_core.generate.watch import FramesJob

# Products of larger matrices round otherwise in single precision, so a pixel in some ten thousands differs by one step
# of 8 bits. Mode channel asks of every element whether it is below a threshold, which rounding answers now and then.
SAME_DB, SAME_BY_THRESHOLDS_DB = 75.0, 45.0
EACH: list[dict[str, Any]] = [
    {"prompt": "a red circle", "seed": 7},
    {"prompt": "a blue square moving left over a striped background", "seed": 2**40, "negative_prompt": "green"},
    {"prompt": "x", "seed": 0, "fps": 24, "output": {"format": "zip"}},
]
RIPPLE = {"aggressiveness": 1.0, "mode": "ripple"}
CHANNEL = {"aggressiveness": 1.0, "mode": "channel"}
DENSE = {"aggressiveness": 0.0}
# Heads that would save too little run dense; here some do.
FOR_RIPPLE = {"width": 96, "height": 96, "num_inference_steps": 3, "reuse": RIPPLE}


def frames_together(
    model: LoadedModel, requests: Sequence[ResolvedRequest], stop_at: dict[int, int] | None = None
) -> list[GeneratedFrames | RippleError]:
    """In one batch; a job of stop_at stops after that step."""

    def job(number: int, request: ResolvedRequest) -> FramesJob:
        steps: list[int] = []
        stop = (stop_at or {}).get(number, 1000)
        return FramesJob(request, lambda progress: steps.append(progress.step), lambda: steps[-1] >= stop)

    return generate_batch(model, [job(*pair) for pair in enumerate(requests)])


def assert_same(together: GeneratedFrames | RippleError, alone: GeneratedFrames) -> None:
    assert isinstance(together, GeneratedFrames)
    difference = psnr_db(alone.frames, together.frames)
    assert difference is None or difference > (SAME_BY_THRESHOLDS_DB if alone.report.mode == "channel" else SAME_DB)


@pytest.mark.parametrize(
    "settings",
    [{"reuse": DENSE}, {"reuse": DENSE, "guidance_scale": 1.0}, {"reuse": CHANNEL}, FOR_RIPPLE],
    ids=["dense", "unguided", "channel", "ripple"],
)
def test_videos_and_savings_are_those_of_each_alone(model: LoadedModel, ask: Any, settings: dict[str, Any]) -> None:
    requests = [ask(model.spec, **(settings | own)) for own in EACH]
    results = frames_together(model, requests)
    assert len(results) == len(requests)
    for request, result in zip(requests, results, strict=True):
        alone = generate_frames(model, request)
        assert_same(result, alone)
        assert isinstance(result, GeneratedFrames)
        assert result.report.total.dense_flops == alone.report.total.dense_flops
        rounding = 1e-3 if alone.report.mode == "channel" else 0
        assert result.report.total.executed_flops == pytest.approx(alone.report.total.executed_flops, rel=rounding)
        assert (alone.report.savings > 0.05) == (settings["reuse"] != DENSE)
        assert (result.report.calls, result.report.tokens) == (alone.report.calls, alone.report.tokens)
        assert (result.report.dense_steps, result.report.fallbacks) == (
            alone.report.dense_steps,
            alone.report.fallbacks,
        )


def test_seeds_and_prompts_are_each_videos_own(model: LoadedModel, ask: Any) -> None:
    """What the comparison with each alone rests on: they are not all the same."""
    results = frames_together(model, [ask(model.spec, **own) for own in EACH])
    frames = [result.frames for result in results if isinstance(result, GeneratedFrames)]
    assert len(frames) == 3
    assert all(psnr_db(frames[0], other) < 30 for other in frames[1:])


@pytest.mark.parametrize("scheduler", ["euler", "unipc"])
@pytest.mark.parametrize("stop_at", [{0: 0}, {1: 2}, {0: 1, 2: 3}, {1: 5}], ids=str)
def test_a_job_that_stops_leaves_the_others_as_they_are(
    model: LoadedModel, ask: Any, stop_at: dict[int, int], scheduler: str
) -> None:
    """With a scheduler that keeps what it was told in earlier steps, too."""
    kept = model.pipe.scheduler
    if scheduler == "unipc":
        model.pipe.scheduler = UniPCMultistepScheduler.from_config(
            kept.config, prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        )
    requests = [ask(model.spec, **own) for own in EACH]
    batches: list[int] = []
    hook = model.pipe.transformer.register_forward_pre_hook(
        lambda _, __, arguments: batches.append(len(arguments["hidden_states"])), with_kwargs=True
    )
    try:
        results = frames_together(model, requests, stop_at)
        hook.remove()
        for number, (request, result) in enumerate(zip(requests, results, strict=True)):
            if number in stop_at:
                assert isinstance(result, GenerationCancelled)
                continue
            alone = generate_frames(model, request)
            assert_same(result, alone)
            assert isinstance(result, GeneratedFrames)
            assert result.report.total.dense_flops == alone.report.total.dense_flops
            assert result.report.savings == pytest.approx(alone.report.savings, abs=1e-3)
    finally:
        model.pipe.scheduler = kept
    left = [3 - sum(stop <= step for stop in stop_at.values()) for step in range(5)]
    assert batches == [size for size in left for _ in range(2)], "work was done for nobody"


def test_all_may_stop(model: LoadedModel, ask: Any) -> None:
    before = generate_frames(model, ask(model.spec))
    results = frames_together(model, [ask(model.spec, **own) for own in EACH], {0: 1, 1: 0, 2: 3})
    assert all(isinstance(result, GenerationCancelled) for result in results)
    assert np.array_equal(generate_frames(model, ask(model.spec)).frames, before.frames)


class Follower:
    """A job's folder and what it was told; says stop once, as a worker's pipe does."""

    def __init__(self, request: ResolvedRequest, folder: Path, stop_at: int | None = None) -> None:
        folder.mkdir()
        self.seen: list[Progress] = []
        self.ended: list[object] = []
        self._stop_at = stop_at
        self.job = VideoJob(request, folder, self.seen.append, self._should_stop, on_end=self.ended.append)

    def _should_stop(self) -> bool:
        assert not any(isinstance(end, GenerationCancelled) for end in self.ended), "asked again"
        if self._stop_at is None or self.seen[-1].step < self._stop_at:
            return False
        self._stop_at = None
        return True


@pytest.fixture
def follow(model: LoadedModel, ask: Any, tmp_path: Path) -> Callable[..., list[Follower]]:
    def follow(stop_at: dict[int, int] | None = None, **changes: Any) -> list[Follower]:
        stops = stop_at or {}
        return [
            Follower(ask(model.spec, **(changes | own)), tmp_path / str(number), stops.get(number))
            for number, own in enumerate(EACH)
        ]

    return follow


def run(model: LoadedModel, followers: Sequence[Follower], **options: Any) -> list[Any]:
    results = generate_videos(model, [follower.job for follower in followers], **options)
    assert [follower.ended for follower in followers] == [[result] for result in results]
    return results


def test_each_job_gets_its_files_progress_and_metrics(model: LoadedModel, follow: Any) -> None:
    followers = follow()
    results = run(model, followers)
    for follower, metrics, own in zip(followers, results, EACH, strict=True):
        suffix = own.get("output", {}).get("format", "mp4")
        names = {path.name for path in follower.job.folder.iterdir()}
        assert f"video.{suffix}" in names
        assert len(names) == 3
        assert (metrics.output.frames, metrics.output.fps) == (9, own.get("fps", 5))
        assert (metrics.batch_size, metrics.retries) == (3, [])
        assert metrics.latency_s.denoise == results[0].latency_s.denoise
        assert 0 < metrics.latency_s.mp4_encode < metrics.latency_s.total
        stages = ["text_encode", *["denoise"] * 6, "vae_decode", "mp4_encode"]
        assert [progress.stage for progress in follower.seen] == stages
        fractions = [progress.fraction for progress in follower.seen]
        assert fractions == sorted(fractions)
    assert len({metrics.output.sha256 for metrics in results}) == 3


def test_a_cancelled_job_is_told_at_once_and_its_folder_stays_empty(model: LoadedModel, follow: Any) -> None:
    followers = follow(stop_at={1: 2})
    results = run(model, followers)
    assert isinstance(results[1], GenerationCancelled)
    assert followers[1].seen[-1].step == 2
    assert list(followers[1].job.folder.iterdir()) == []
    assert all(isinstance(results[number], JobMetrics) for number in (0, 2))


def spoil_item(model: LoadedModel, item: int) -> Any:
    """In batches, one item of the transformer's output is no number."""

    def spoil(_module: Any, _args: Any, output: Any) -> Any:
        if len(output[0]) > item > 0:
            output[0][item] = torch.nan
        return output

    return model.pipe.transformer.register_forward_hook(spoil)


@pytest.mark.parametrize("retry_dense", [True, False])
def test_one_videos_bad_frames_are_its_own(model: LoadedModel, follow: Any, retry_dense: bool) -> None:
    followers = follow()
    hook = spoil_item(model, 2)
    results = run(model, followers, retry_dense=retry_dense)
    hook.remove()
    assert [results[number].retries for number in (0, 1)] == [[], []]
    if not retry_dense:
        assert isinstance(results[2], InvalidOutput)
        assert list(followers[2].job.folder.iterdir()) == []
        return
    assert results[2].retries == [Retry(reason="invalid_output", remedy="dense_attention")]
    assert (results[2].attention.mode, results[2].batch_size) == ("dense", 1)
    assert results[0].attention.savings > 0


def test_what_does_not_fit_together_is_made_one_by_one(model: LoadedModel, follow: Any) -> None:
    """A job that was cancelled before stays so."""

    def ask_for_too_much(_module: Any, _args: Any, arguments: Any) -> None:
        batches.append(len(arguments["hidden_states"]))
        if len(batches) == 6:
            torch.empty(2**60, dtype=torch.uint8)

    batches: list[int] = []
    hook = model.pipe.transformer.register_forward_pre_hook(ask_for_too_much, with_kwargs=True)
    followers = follow(stop_at={1: 1})
    results = run(model, followers)
    hook.remove()
    assert isinstance(results[1], GenerationCancelled)
    assert [results[number].batch_size for number in (0, 2)] == [1, 1]
    assert followers[1].seen[-1].step == 1


def test_a_folder_that_is_gone_is_one_jobs_trouble(model: LoadedModel, follow: Any) -> None:
    followers = follow()
    followers[0].job.folder.rmdir()
    results = run(model, followers)
    assert type(results[0]) is GenerationFailed
    assert all(isinstance(result, JobMetrics) for result in results[1:])


def test_one_job_may_be_any(model: LoadedModel, ask: Any, tmp_path: Path) -> None:
    follower = Follower(ask(model.spec, quality_check=True), tmp_path / "x")
    [metrics] = run(model, [follower])
    assert metrics.quality is not None
    assert metrics.batch_size == 1


def test_requests_that_differ_are_refused(model: LoadedModel, ask: Any, tmp_path: Path) -> None:
    jobs = [VideoJob(ask(model.spec, **own), tmp_path) for own in ({}, {"num_frames": 5})]
    with pytest.raises(ValueError, match="can_share"):
        generate_videos(model, jobs)


def test_memory_errors_of_one_alone_are_its_result(model: LoadedModel, follow: Any) -> None:
    def ask_for_too_much(*_: Any) -> None:
        torch.empty(2**60, dtype=torch.uint8)

    hook = model.pipe.transformer.register_forward_hook(ask_for_too_much)
    results = run(model, follow())
    hook.remove()
    assert all(isinstance(result, OutOfMemory) for result in results)
