"""Complete pipeline folders with random weights: small, quick, of the real classes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

IMAGE_DIM = 20


def random_transformer(**changes: Any) -> Any:
    from diffusers import WanTransformer3DModel

    from ripple_core.tiny.architecture import Z_DIM

    config = {
        "patch_size": (1, 2, 2),
        "num_attention_heads": 2,
        "attention_head_dim": 12,
        "in_channels": Z_DIM,
        "out_channels": Z_DIM,
        "text_dim": 64,
        "freq_dim": 16,
        "ffn_dim": 32,
        "num_layers": 2,
        "rope_max_seq_len": 64,
    }
    return WanTransformer3DModel(**(config | changes)).eval()


def random_parts() -> dict[str, Any]:
    """All of a pipeline but its transformer."""
    from diffusers import AutoencoderKLWan, FlowMatchEulerDiscreteScheduler

    from ripple_core.tiny import architecture

    tokenizer = architecture.build_tokenizer()
    return {
        "tokenizer": tokenizer,
        "vae": AutoencoderKLWan.from_config(dict(architecture.build_vae().config) | {"base_dim": 8}).eval(),
        "text_encoder": architecture.build_text_encoder(len(tokenizer)).eval(),
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0),
    }


def _written(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.fixture(scope="session")
def random_pipeline_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """For all tests to read; one that changes a file takes a copy."""
    from diffusers import WanPipeline

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models") / "random"
    WanPipeline(**random_parts(), transformer=random_transformer()).save_pretrained(folder)
    written = _written(folder)
    yield folder
    assert _written(folder) == written


@pytest.fixture
def random_pipeline(random_pipeline_folder: Path) -> Any:
    from diffusers import WanPipeline

    pipe = WanPipeline.from_pretrained(random_pipeline_folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def image_encoder() -> dict[str, Any]:
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel

    config = CLIPVisionConfig(
        hidden_size=IMAGE_DIM,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
    )
    return {
        "image_encoder": CLIPVisionModel(config).eval(),
        "image_processor": CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
    }


def image_pipeline(kind: str) -> Any:
    from diffusers import WanImageToVideoPipeline

    from ripple_core.tiny.architecture import Z_DIM

    # Noise, the first frame's latents, and a mask over the two frames of a latent.
    conditioned = {"in_channels": Z_DIM + Z_DIM + 2}
    parts = random_parts()
    if kind == "wan-2.1":
        transformer = random_transformer(**conditioned, image_dim=IMAGE_DIM, added_kv_proj_dim=24)
        return WanImageToVideoPipeline(**parts, **image_encoder(), transformer=transformer)
    if kind == "wan-2.2-a14b":
        both = {name: random_transformer(**conditioned) for name in ("transformer", "transformer_2")}
        return WanImageToVideoPipeline(**parts, **both, boundary_ratio=0.8)
    return WanImageToVideoPipeline(**parts, transformer=random_transformer(), expand_timesteps=True)


@pytest.fixture(scope="session", params=["wan-2.1", "wan-2.2-a14b", "wan-2.2-5b"])
def image_pipeline_folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Image to video: with an image encoder; with two transformers; with a timestep for each token."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models") / request.param
    image_pipeline(request.param).save_pretrained(folder)
    return folder
