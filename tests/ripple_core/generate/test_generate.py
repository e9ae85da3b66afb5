"""One request to frames and files, with the loading code of real checkpoints."""

import copy
import hashlib
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ripple_core.bench.clip_set import ClipSet
from ripple_core.bench.fidelity import FidelityRun, measure_fidelity
from ripple_core.contract.errors import GenerationCancelled, ModelLoadFailed
from ripple_core.contract.job import Progress
from ripple_core.contract.models import find_model
from ripple_core.contract.request import GenerateRequest, OutputSettings, ResolvedRequest, ReuseSettings
from ripple_core.contract.validate import resolve
from ripple_core.contract.videos import SPRITESHEET, THUMBNAIL
from ripple_core.generate import LoadedModel, generate_frames, generate_video, load_model

SIZE: dict[str, Any] = {"width": 48, "height": 32, "num_frames": 9, "fps": 5, "num_inference_steps": 5}


def request(model: LoadedModel, aggressiveness: float = 0.5, **changes: Any) -> ResolvedRequest:
    # A grid this small runs dense in mode auto.
    reuse = ReuseSettings(aggressiveness=aggressiveness, mode="channel")
    return resolve(GenerateRequest(prompt="a red circle", reuse=reuse, **(SIZE | {"seed": 7} | changes)), model.spec)


@pytest.mark.parametrize("guidance_scale", [1.0, 4.0])
def test_aggressiveness_0_gives_the_frames_of_a_plain_diffusers_script(
    model: LoadedModel, random_pipeline: Any, guidance_scale: float
) -> None:
    ours = generate_frames(model, request(model, 0.0, guidance_scale=guidance_scale, negative_prompt="blue"))
    plain = random_pipeline(
        "a red circle",
        negative_prompt="blue",
        width=48,
        height=32,
        num_frames=9,
        num_inference_steps=5,
        guidance_scale=guidance_scale,
        generator=torch.Generator().manual_seed(7),
        output_type="pil",
    ).frames[0]
    assert np.array_equal(ours.frames, np.stack([np.asarray(frame) for frame in plain]))


def test_the_same_request_gives_the_same_frames_after_other_work(model: LoadedModel) -> None:
    first = generate_frames(model, request(model))
    generate_frames(model, request(model, 1.0, seed=8))
    second = generate_frames(model, request(model))
    assert np.array_equal(first.frames, second.frames)
    assert first.report == second.report


def test_every_step_is_reported_in_order(model: LoadedModel) -> None:
    seen: list[Progress] = []
    generate_frames(model, request(model), seen.append)
    assert [progress.stage for progress in seen] == ["text_encode", *["denoise"] * 6, "vae_decode"]
    assert [progress.step for progress in seen if progress.stage == "denoise"] == list(range(6))
    fractions = [progress.fraction for progress in seen]
    assert fractions == sorted(fractions)
    assert 0 <= fractions[0] <= fractions[-1] < 1


@pytest.mark.parametrize("stop_at", [1, 3, 5])
def test_a_stop_takes_effect_at_the_next_step_and_spoils_nothing(model: LoadedModel, stop_at: int) -> None:
    before = generate_frames(model, request(model))
    steps: list[int] = []
    with pytest.raises(GenerationCancelled):
        generate_frames(
            model, request(model), lambda p: steps.append(p.step), should_stop=lambda: steps[-1] >= stop_at
        )  # fmt: skip
    assert max(steps) == stop_at
    assert np.array_equal(generate_frames(model, request(model)).frames, before.frames)


def test_metrics_are_complete_and_add_up(model: LoadedModel, tmp_path: Path) -> None:
    # First steps after loading tell nothing of others.
    generate_frames(model, request(model, 1.0))
    metrics = generate_video(model, request(model, 1.0), tmp_path)
    latency = metrics.latency_s
    parts = latency.text_encode + latency.denoise + latency.vae_decode + latency.mp4_encode
    assert 0 < parts <= latency.total
    attention = metrics.attention
    assert attention.executed_flops == sum(step.executed_flops for step in attention.by_step)
    assert attention.executed_flops == sum(layer.executed_flops for layer in attention.by_layer)
    assert attention.savings == pytest.approx(1 - attention.executed_flops / attention.dense_flops)
    assert attention.dense_steps == sum(step.dense for step in attention.by_step) == 2
    steps = metrics.denoising_step_s
    assert len(steps) == len(attention.by_step)
    assert 0 < sum(steps) <= latency.denoise
    # The first step of all is left out.
    dense = [seconds for seconds, step in list(zip(steps, attention.by_step, strict=True))[1:] if step.dense]
    assert metrics.dense_denoise_estimate_s == pytest.approx(statistics.median_low(dense) * len(steps))
    content = (tmp_path / "video.mp4").read_bytes()
    assert metrics.output.bytes == len(content)
    assert metrics.output.sha256 == hashlib.sha256(content).hexdigest()
    assert (metrics.output.frames, metrics.output.duration_s) == (9, pytest.approx(9 / 5))
    assert metrics.device.peak_memory_bytes > 0
    assert (metrics.device.dtype, metrics.device.name.split()[0]) == ("float32", "cpu")


@pytest.mark.parametrize("name", ["mp4", "webm", "gif", "zip"])
def test_a_video_comes_with_its_pictures_and_nothing_else(model: LoadedModel, tmp_path: Path, name: str) -> None:
    asked = request(model, num_inference_steps=1, output=OutputSettings.model_validate({"format": name}))
    metrics = generate_video(model, asked, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {f"video.{name}", THUMBNAIL, SPRITESHEET}
    assert metrics.output.bytes == (tmp_path / f"video.{name}").stat().st_size


def test_a_pipeline_with_two_transformers(random_pipeline: Any, tmp_path: Path) -> None:
    """As Wan 2.2 A14B: one report over both, a step known to each."""
    pipe = random_pipeline
    pipe.register_modules(transformer_2=copy.deepcopy(pipe.transformer))
    pipe.register_to_config(boundary_ratio=0.8)
    pipe.save_pretrained(tmp_path)
    two = load_model(find_model(str(tmp_path)))
    stock = generate_frames(two, request(two, 0.0))
    report = generate_frames(two, request(two, 1.0)).report
    assert report.fallbacks == {}
    assert sorted(report.by_layer) == [0, 1, 2, 3]
    assert sorted(report.by_step) == list(range(5))
    assert report.total.dense_flops == stock.report.total.dense_flops
    assert report.savings > 0
    assert np.array_equal(generate_frames(two, request(two, 0.0)).frames, stock.frames)
    with pytest.raises(ModelLoadFailed, match="two transformers"):
        measure_fidelity(FidelityRun(ClipSet(["x"]), ["channel"], [0.5]), two, tmp_path / "report")


def test_a_broken_folder_names_the_model(random_pipeline_folder: Path, tmp_path: Path) -> None:
    spec = find_model(str(random_pipeline_folder)).model_copy(update={"source": str(tmp_path)})
    with pytest.raises(ModelLoadFailed, match="random could not be loaded"):
        load_model(spec)


def test_a_first_video_tells_no_dense_time(random_pipeline_folder: Path, tmp_path: Path) -> None:
    """Steps take longer right after loading; with or without a twin."""
    fresh = load_model(find_model(str(random_pipeline_folder)))
    first = generate_video(fresh, request(fresh, 1.0, quality_check=True), tmp_path)
    assert first.dense_denoise_estimate_s is None
    assert generate_frames(fresh, request(fresh, 1.0)).dense_denoise_estimate_s is not None
