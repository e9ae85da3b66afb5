"""The dense twin of a video, rendered and compared on request."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ripple_core.contract.errors import GenerationCancelled
from ripple_core.contract.job import Progress
from ripple_core.generate import LoadedModel, generate_frames, generate_video
from ripple_core.generate.difference import compare_frames

DENSE = {"aggressiveness": 0.0, "mode": "channel"}


def test_quality_is_the_difference_to_the_dense_frames(model: LoadedModel, ask: Any, tmp_path: Path) -> None:
    reused = generate_frames(model, ask(model.spec))
    metrics = generate_video(model, ask(model.spec, quality_check=True), tmp_path)
    dense = generate_frames(model, ask(model.spec, reuse=DENSE))
    difference = compare_frames(dense.frames, reused.frames)
    quality = metrics.quality
    assert quality is not None
    assert not quality.identical
    assert quality.psnr_db == difference.psnr_db
    assert quality.worst_frame_psnr_db == difference.worst_frame_psnr_db
    assert quality.ssim == difference.ssim < 1
    assert 0 < quality.dense_denoise_s < metrics.latency_s.quality_check
    assert metrics.dense_denoise_estimate_s == quality.dense_denoise_s


def test_the_video_and_its_savings_are_those_without_a_check(model: LoadedModel, ask: Any, tmp_path: Path) -> None:
    checked = generate_video(model, ask(model.spec, quality_check=True), tmp_path)
    plain = generate_video(model, ask(model.spec), tmp_path)
    assert checked.output == plain.output
    assert checked.attention == plain.attention
    assert plain.quality is None
    assert plain.latency_s.quality_check == 0
    latency = checked.latency_s
    parts = latency.text_encode + latency.denoise + latency.vae_decode + latency.mp4_encode + latency.quality_check
    assert parts <= latency.total


@pytest.mark.parametrize(
    "reuse",
    [DENSE, {"aggressiveness": 0.5, "mode": "dense"}, {"aggressiveness": 0.5, "mode": "auto"}],
    ids=["aggressiveness-0", "dense", "auto-on-a-short-clip"],
)
def test_what_ran_dense_is_not_rendered_twice(model: LoadedModel, ask: Any, tmp_path: Path, reuse: Any) -> None:
    seen: list[Progress] = []
    metrics = generate_video(model, ask(model.spec, quality_check=True, reuse=reuse), tmp_path, seen.append)
    quality = metrics.quality
    assert quality is not None
    assert (quality.identical, quality.psnr_db, quality.worst_frame_psnr_db, quality.ssim) == (True, None, None, 1.0)
    assert quality.dense_denoise_s == metrics.latency_s.denoise
    assert "quality_check" not in {progress.stage for progress in seen}


def test_progress_never_falls_and_the_check_shows_its_steps(model: LoadedModel, ask: Any, tmp_path: Path) -> None:
    seen: list[Progress] = []
    generate_video(model, ask(model.spec, quality_check=True), tmp_path, seen.append)
    fractions = [progress.fraction for progress in seen]
    assert fractions == sorted(fractions)
    assert fractions[-1] < 1
    stages = list(dict.fromkeys(progress.stage for progress in seen))
    assert stages == ["text_encode", "denoise", "vae_decode", "quality_check", "mp4_encode"]
    checked = [progress for progress in seen if progress.stage == "quality_check"]
    assert {progress.step for progress in checked} == set(range(6))
    # Half of the job is done when the check begins.
    assert checked[0].fraction == 0.5


@pytest.mark.parametrize("step", [0, 5])
def test_a_stop_during_the_check_leaves_nothing_behind(model: LoadedModel, ask: Any, tmp_path: Path, step: int) -> None:
    before = generate_frames(model, ask(model.spec))
    seen: list[Progress] = []

    def should_stop() -> bool:
        return seen[-1].stage == "quality_check" and seen[-1].step >= step

    with pytest.raises(GenerationCancelled):
        generate_video(model, ask(model.spec, quality_check=True), tmp_path, seen.append, should_stop)
    assert seen[-1].step == step
    assert list(tmp_path.iterdir()) == []
    assert np.array_equal(generate_frames(model, ask(model.spec)).frames, before.frames)


def test_a_stop_between_compared_frames_is_heard() -> None:
    frames = np.zeros((4, 16, 16, 3), np.uint8)
    compared: list[int] = []

    def before_frame() -> None:
        compared.append(len(compared))
        if len(compared) == 3:
            raise GenerationCancelled("stop")

    with pytest.raises(GenerationCancelled):
        compare_frames(frames, frames + 1, before_frame)
    assert compared == [0, 1, 2]
