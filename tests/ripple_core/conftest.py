"""A complete WanPipeline folder with random weights: small, quick, of the real classes."""

from pathlib import Path
from typing import Any

import pytest
import torch


@pytest.fixture(scope="session")
def random_pipeline_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from diffusers import AutoencoderKLWan, WanTransformer3DModel

    from ripple_core.tiny import architecture

    torch.manual_seed(0)
    tokenizer = architecture.build_tokenizer()
    vae = AutoencoderKLWan.from_config(dict(architecture.build_vae().config) | {"base_dim": 8})
    transformer = WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=architecture.Z_DIM,
        out_channels=architecture.Z_DIM,
        text_dim=64,
        freq_dim=16,
        ffn_dim=32,
        num_layers=2,
        rope_max_seq_len=64,
    )
    text_encoder = architecture.build_text_encoder(len(tokenizer))
    folder = tmp_path_factory.mktemp("models") / "random"
    pipe = architecture.build_pipeline(transformer.eval(), vae.eval(), text_encoder.eval(), tokenizer)
    pipe.save_pretrained(folder)
    return folder


@pytest.fixture
def random_pipeline(random_pipeline_folder: Path) -> Any:
    from diffusers import WanPipeline

    pipe = WanPipeline.from_pretrained(random_pipeline_folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe
