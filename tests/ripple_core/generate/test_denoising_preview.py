"""Small videos between denoising steps: what they show, what they cost, and that they change nothing."""

import io
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan, EulerDiscreteScheduler, UniPCMultistepScheduler
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageSequence

from ripple_core.contract.model_config import LoadOptions
from ripple_core.contract.models import find_model
from ripple_core.contract.request import ResolvedRequest
from ripple_core.generate import LoadedModel, VideoJob, generate_frames, generate_video, generate_videos, load_model
from ripple_core.generate.denoising_preview import estimate_x0, preview_steps
from ripple_core.generate.difference import psnr_db
from ripple_core.generate.run import GeneratedFrames

Shown = list[tuple[int, bytes]]


def watch(model: LoadedModel, request: ResolvedRequest, **more: Any) -> tuple[GeneratedFrames, Shown]:
    shown: Shown = []
    return generate_frames(model, request, on_preview=lambda *one: shown.append(one), **more), shown


def unipc(model: LoadedModel) -> UniPCMultistepScheduler:
    return UniPCMultistepScheduler.from_config(
        model.pipe.scheduler.config, prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )


def frames_of(preview: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(preview)) as image:
        assert image.format == "WEBP"
        return np.stack([np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(image)])


@given(
    noise=st.lists(st.floats(-4, 4), min_size=6, max_size=6),
    clean=st.lists(st.floats(-4, 4), min_size=6, max_size=6),
    sigmas=st.tuples(st.floats(0, 1), st.floats(0, 1)).filter(lambda pair: abs(pair[0] - pair[1]) > 0.01),
)
def test_the_estimate_is_exact_for_a_step_of_euler(
    noise: list[float], clean: list[float], sigmas: tuple[float, float]
) -> None:
    after, before = sorted(sigmas)
    x0, x1 = torch.tensor(clean, dtype=torch.float64), torch.tensor(noise, dtype=torch.float64)
    x_before = (1 - before) * x0 + before * x1
    x_after = x_before + (after - before) * (x1 - x0)
    assert torch.allclose(estimate_x0(x_before, x_after, before, after), x0, atol=1e-9)


@given(st.integers(1, 200))
def test_there_are_eight_at_most_and_none_after_the_last_step(num_steps: int) -> None:
    steps = preview_steps(num_steps)
    assert len(steps) <= 8
    assert len(steps) >= min(num_steps - 2, 4)
    assert all(2 <= step < num_steps for step in steps)


@pytest.mark.parametrize("scheduler", ["euler", "unipc"])
def test_previews_come_between_the_steps_and_the_video_is_the_same(
    model: LoadedModel, ask: Any, monkeypatch: pytest.MonkeyPatch, scheduler: str
) -> None:
    if scheduler == "unipc":
        monkeypatch.setattr(model.pipe, "scheduler", unipc(model))
    plain = generate_frames(model, ask(model.spec))
    torch.manual_seed(5)
    state = torch.get_rng_state()
    watched, shown = watch(model, ask(model.spec, preview=True))
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(watched.frames, plain.frames)
    assert watched.report == plain.report
    assert [step for step, _ in shown] == [2, 3, 4]
    assert plain.latency.preview == 0 < watched.latency.preview
    assert len(watched.step_seconds) == 5
    assert {frames_of(preview).shape for _, preview in shown} == {(9, 16, 24, 3)}


@pytest.mark.parametrize("scheduler", ["euler", "unipc"])
def test_previews_show_the_video_more_and_more(ask: Any, scheduler: str) -> None:
    """Of a model that has learnt something."""
    model = load_model(find_model("builtin"))
    if scheduler == "unipc":
        model.pipe.scheduler = unipc(model)
    asked = ask(model.spec, preview=True, width=64, height=64, num_inference_steps=6, guidance_scale=1.0)
    watched, shown = watch(model, asked)
    final = np.stack(
        [np.asarray(Image.fromarray(frame).resize((32, 32), Image.Resampling.BOX)) for frame in watched.frames]
    )
    likeness = [psnr_db(final, frames_of(preview)) or 100 for _, preview in shown]
    assert likeness[-1] > likeness[0]
    assert likeness[-1] > 20


def test_frames_follow_one_another_as_fast_as_in_the_video(model: LoadedModel, ask: Any) -> None:
    _, [(_, preview)] = watch(model, ask(model.spec, preview=True, num_inference_steps=3, fps=5))
    with Image.open(io.BytesIO(preview)) as image:
        image.seek(1)
        image.load()
        assert (image.info["duration"], image.info["loop"]) == (200, 0)


def test_the_longer_side_is_at_most_128_pixels(model: LoadedModel, ask: Any) -> None:
    small = {"width": 288, "height": 64, "num_frames": 1, "num_inference_steps": 3, "reuse": {"mode": "dense"}}
    _, [(_, preview)] = watch(model, ask(model.spec, preview=True, **small))
    assert frames_of(preview).shape == (1, 28, 128, 3)


def test_the_time_of_previews_is_a_stage_and_of_no_step(
    model: LoadedModel, ask: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With a decoder that takes long: the seconds are far from those of the steps."""
    slept = 0.3
    decode = AutoencoderKLWan.decode

    def slow(vae: AutoencoderKLWan, latents: torch.Tensor, return_dict: bool = True) -> Any:
        if latents.shape[-1] < 12:
            time.sleep(slept)
        return decode(vae, latents, return_dict=return_dict)

    monkeypatch.setattr(AutoencoderKLWan, "decode", slow)
    metrics = generate_video(model, ask(model.spec, preview=True), tmp_path, on_preview=lambda *_: None)
    latency = metrics.latency_s
    assert latency.preview >= 3 * slept
    assert sum(metrics.denoising_step_s) <= latency.denoise
    parts = latency.text_encode + latency.denoise + latency.preview + latency.vae_decode + latency.mp4_encode
    assert parts <= latency.total


def test_a_preview_that_fails_is_the_last_one_and_the_video_comes(
    model: LoadedModel, ask: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With a decoder that has no memory for small frames; a second try in tiles is for the video alone."""
    plain = generate_frames(model, ask(model.spec))
    decode, tried = AutoencoderKLWan.decode, []

    def fail(vae: AutoencoderKLWan, latents: torch.Tensor, return_dict: bool = True) -> Any:
        if latents.shape[-1] < 12:
            tried.append(latents.shape)
            raise torch.OutOfMemoryError("CUDA out of memory")
        return decode(vae, latents, return_dict=return_dict)

    monkeypatch.setattr(AutoencoderKLWan, "decode", fail)
    watched, shown = watch(model, ask(model.spec, preview=True), retry_tiling=True)
    assert (shown, len(tried), watched.retries) == ([], 1, ())
    assert np.array_equal(watched.frames, plain.frames)
    assert len([record for record in caplog.records if "preview" in record.message]) == 1


def test_of_a_batch_only_those_who_ask_get_previews_each_its_own(model: LoadedModel, ask: Any, tmp_path: Path) -> None:
    shown: dict[int, Shown] = {0: [], 1: [], 2: []}
    asked = [ask(model.spec, seed=seed, preview=seed != 1, fps=5 + seed) for seed in range(3)]

    def job(number: int) -> VideoJob:
        folder = tmp_path / str(number)
        folder.mkdir()
        # The last one stops on the way.
        steps: list[int] = []
        return VideoJob(
            asked[number],
            folder,
            lambda progress: steps.append(progress.step),
            lambda: number == 2 and steps[-1] >= 3,
            on_preview=lambda *one: shown[number].append(one),
        )

    results = generate_videos(model, [job(number) for number in range(3)])
    assert [step for step, _ in shown[0]] == [2, 3, 4]
    assert shown[1] == []
    assert [step for step, _ in shown[2]] == [2]
    assert results[0].batch_size == 3  # type: ignore[union-attr]
    _, alone = watch(model, asked[0])
    for (_, ours), (_, theirs) in zip(shown[0], alone, strict=True):
        difference = psnr_db(frames_of(theirs), frames_of(ours))
        assert difference is None or difference > 40


def test_nobody_is_shown_what_the_request_did_not_ask_for(model: LoadedModel, ask: Any) -> None:
    assert watch(model, ask(model.spec))[1] == []


def test_the_dense_twin_has_no_previews(model: LoadedModel, ask: Any, tmp_path: Path) -> None:
    shown: list[int] = []
    request = ask(model.spec, preview=True, quality_check=True)
    metrics = generate_video(model, request, tmp_path, on_preview=lambda step, _: shown.append(step))
    assert metrics.quality is not None
    assert not metrics.quality.identical
    assert shown == [2, 3, 4]


def test_a_scheduler_that_is_none_of_flow_matching_has_no_previews(
    model: LoadedModel, ask: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model.pipe, "scheduler", EulerDiscreteScheduler())
    assert watch(model, ask(model.spec, preview=True))[1] == []


def test_a_model_that_is_offloaded_has_no_previews(random_pipeline_folder: Path, model: LoadedModel, ask: Any) -> None:
    spec = find_model(str(random_pipeline_folder))
    offloaded = load_model(spec, "cpu", options=LoadOptions(offload="group"))
    watched, shown = watch(offloaded, ask(spec, preview=True))
    assert shown == []
    assert np.array_equal(watched.frames, generate_frames(model, ask(spec)).frames)


def test_a_video_that_begins_from_an_image_is_previewed_with_it(image_pipeline_folder: Path, ask: Any) -> None:
    model = load_model(find_model(str(image_pipeline_folder)))
    image = Image.new("RGB", (48, 32), (200, 40, 40))
    asked = ask(model.spec, "0" * 64, preview=True, num_inference_steps=3)
    plain = generate_frames(model, asked, first_frame=image)
    watched, [(step, preview)] = watch(model, asked, first_frame=image)
    assert (step, frames_of(preview).shape) == (2, (9, 16, 24, 3))
    assert np.array_equal(watched.frames, plain.frames)
