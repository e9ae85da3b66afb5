"""Tokens and FLOPs of a model's shape, against what is counted when it runs."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ripple_core.bench.flops import count_transformer
from ripple_core.contract.architecture import Architecture
from ripple_core.contract.models import CATALOGUE, find_model
from ripple_core.contract.request import GenerateRequest, ReuseSettings
from ripple_core.contract.validate import resolve
from ripple_core.generate import LoadedModel, generate_frames, load_model


def architecture_of(name: str) -> Architecture:
    architecture = find_model(name).architecture
    assert architecture is not None
    return architecture


@pytest.fixture(scope="module")
def builtin() -> LoadedModel:
    return load_model(find_model("builtin"))


@pytest.mark.parametrize(
    ("guidance_scale", "passes", "size"),
    [(3.0, 2, {}), (1.0, 1, {"width": 48, "height": 80, "num_frames": 7})],
    ids=["guided-128x128x17", "unguided-48x80x7"],
)
def test_attention_flops_are_those_counted_in_a_run(
    builtin: LoadedModel, guidance_scale: float, passes: int, size: dict[str, Any]
) -> None:
    request = resolve(
        GenerateRequest(
            prompt="a red circle",
            num_inference_steps=1,
            guidance_scale=guidance_scale,
            reuse=ReuseSettings(mode="dense"),
            **size,
        ),
        builtin.spec,
    )
    report = generate_frames(builtin, request).report
    architecture = architecture_of("builtin")
    tokens = architecture.tokens(request.width, request.height, request.num_frames)
    assert report.tokens == tokens
    assert report.total.dense_flops == passes * architecture.attention_flops(tokens)


def test_the_built_in_model_at_its_defaults() -> None:
    architecture = architecture_of("builtin")
    tokens = architecture.tokens(128, 128, 17)
    assert tokens == 9 * 16 * 16
    assert 20 * 2 * architecture.attention_flops(tokens) == 978_447_237_120


def test_linear_flops_are_those_of_the_blocks_less_the_text(builtin: LoadedModel) -> None:
    text_tokens = 3
    architecture = architecture_of("builtin")
    counted = count_transformer(builtin.pipe.transformer, text_tokens).block.per_token
    # QK^T and PV of cross-attention grow with the text, which is padded to one length.
    products = 4 * text_tokens * architecture.num_heads * architecture.head_dim
    assert architecture.linear_flops(1) == (counted - products) * architecture.num_layers


@given(tokens=st.integers(1, 200_000), factor=st.integers(1, 10))
def test_attention_grows_with_the_square_and_the_rest_with_the_tokens(tokens: int, factor: int) -> None:
    architecture = architecture_of("Wan-AI/Wan2.1-T2V-1.3B-Diffusers")
    assert architecture.attention_flops(factor * tokens) == factor**2 * architecture.attention_flops(tokens)
    assert architecture.linear_flops(factor * tokens) == factor * architecture.linear_flops(tokens)


@pytest.mark.parametrize(
    ("name", "tokens"),
    [
        ("Wan-AI/Wan2.1-T2V-1.3B-Diffusers", 21 * 30 * 52),
        ("Wan-AI/Wan2.1-T2V-14B-Diffusers", 21 * 45 * 80),
        ("Wan-AI/Wan2.1-I2V-14B-480P-Diffusers", 21 * 30 * 52),
        ("Wan-AI/Wan2.2-TI2V-5B-Diffusers", 31 * 22 * 40),
    ],
)
def test_tokens_of_the_catalogue_at_its_defaults(name: str, tokens: int) -> None:
    defaults = find_model(name).defaults
    assert architecture_of(name).tokens(defaults.width, defaults.height, defaults.num_frames) == tokens


def test_every_model_of_the_catalogue_tells_its_shape() -> None:
    assert [name for name, spec in CATALOGUE.items() if spec.architecture is None] == []
