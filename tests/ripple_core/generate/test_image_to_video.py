"""Videos that begin from an image."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ripple_core.contract.errors import GenerationFailed
from ripple_core.contract.models import find_model
from ripple_core.generate import LoadedModel, generate_frames, generate_video, load_model
from ripple_core.generate.first_frame import read_first_frame

SHA256 = "0" * 64


@pytest.fixture(scope="module")
def model(image_pipeline_folder: Path) -> LoadedModel:
    return load_model(find_model(str(image_pipeline_folder)))


def png(path: Path, seed: int, size: tuple[int, int] = (70, 40)) -> Path:
    width, height = size
    noise = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, "PNG")
    return path


def test_the_image_and_the_seed_decide_the_video(model: LoadedModel, ask: Any, tmp_path: Path) -> None:
    first, second = (png(tmp_path / f"{seed}.png", seed) for seed in (1, 2))

    def digest(image: Path, seed: int) -> str:
        asked = ask(model.spec, SHA256, seed=seed, num_inference_steps=2, output={"format": "zip"})
        return generate_video(model, asked, tmp_path, image=image).output.sha256

    assert digest(first, 7) == digest(first, 7)
    assert len({digest(first, 7), digest(second, 7), digest(first, 8)}) == 3


def test_reuse_saves_and_counts_every_step(model: LoadedModel, ask: Any, tmp_path: Path) -> None:
    asked = ask(model.spec, SHA256, quality_check=True)
    metrics = generate_video(model, asked, tmp_path, image=png(tmp_path / "x.png", 1))
    attention, architecture = metrics.attention, model.spec.architecture
    assert attention.savings > 0
    assert attention.fallbacks == []
    assert [step.step for step in attention.by_step] == list(range(5))
    assert architecture is not None
    assert attention.dense_flops == 5 * 2 * architecture.attention_flops(architecture.tokens(48, 32, 9))
    assert metrics.quality is not None
    assert metrics.quality.psnr_db is not None


def test_aggressiveness_0_gives_the_frames_of_a_plain_diffusers_script(
    model: LoadedModel, ask: Any, tmp_path: Path
) -> None:
    import torch
    from diffusers import DiffusionPipeline

    first_frame = read_first_frame(png(tmp_path / "x.png", 1), 48, 32)
    asked = ask(model.spec, SHA256, reuse={"aggressiveness": 0.0}, guidance_scale=4.0)
    ours = generate_frames(model, asked, first_frame=first_frame)
    pipe = DiffusionPipeline.from_pretrained(model.spec.source)
    pipe.set_progress_bar_config(disable=True)
    plain = pipe(
        first_frame,
        "a red circle",
        width=48,
        height=32,
        num_frames=9,
        num_inference_steps=5,
        guidance_scale=4.0,
        generator=torch.Generator().manual_seed(7),
        output_type="pil",
    ).frames[0]
    assert np.array_equal(ours.frames, np.stack([np.asarray(frame) for frame in plain]))


def test_an_image_that_is_gone_is_said(model: LoadedModel, ask: Any, tmp_path: Path) -> None:
    with pytest.raises(GenerationFailed, match="image that the video begins from is gone"):
        generate_video(model, ask(model.spec, SHA256), tmp_path)
    assert list(tmp_path.iterdir()) == []


def halves(width: int, height: int) -> Image.Image:
    """Red on the left, blue on the right, with a green frame at the very edge."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2, 0] = pixels[:, width // 2 :, 2] = 255
    pixels[[0, -1]] = (0, 255, 0)
    pixels[:, [0, -1]] = (0, 255, 0)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("size", [(48, 32), (480, 32), (48, 320), (1001, 997), (7, 5)], ids=str)
def test_any_size_is_scaled_to_cover_and_cropped_around_the_centre(tmp_path: Path, size: tuple[int, int]) -> None:
    halves(*size).save(tmp_path / "x.png")
    image = read_first_frame(tmp_path / "x.png", 48, 32)
    assert (image.mode, image.size) == ("RGB", (48, 32))
    pixels = np.asarray(image).astype(int)
    middle = pixels[12:20]
    assert np.all(middle[:, 12:18, 0] > middle[:, 12:18, 2])
    assert np.all(middle[:, 30:36, 2] > middle[:, 30:36, 0])
    if size == (480, 32):
        # Its sides are cut off, its upper and lower edge are not.
        assert np.all(pixels[8, 0] == (255, 0, 0))
        assert np.all(pixels[0, 10] == (0, 255, 0))
