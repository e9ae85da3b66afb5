"""Loading options: what each changes, and what is said where it cannot be had."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from ripple_core.attention import ReuseProfile
from ripple_core.contract.errors import ModelLoadFailed
from ripple_core.contract.model_config import FirstBlockCache, LoadOptions, Quantization, SeaCache, TaylorSeerCache
from ripple_core.contract.models import find_model
from ripple_core.generate import GeneratedFrames, LoadedModel, generate_frames, load_model
from ripple_core.generate.difference import compare_frames
from ripple_core.generate.model_cache import module_bytes

STEP_CACHES = [
    FirstBlockCache(kind="first_block", threshold=100),
    TaylorSeerCache(kind="taylorseer", cache_interval=2, disable_cache_before_step=1),
    SeaCache(kind="sea", threshold=100, max_consecutive_cached=1),
]


@pytest.fixture
def load(random_pipeline_folder: Path) -> Any:
    def load(**options: Any) -> LoadedModel:
        return load_model(find_model(str(random_pipeline_folder)), "cpu", options=LoadOptions(**options))

    return load


@pytest.fixture(scope="module")
def stock(model: LoadedModel, ask: Any) -> GeneratedFrames:
    return generate_frames(model, ask(model.spec))


def psnr_db(one: GeneratedFrames, other: GeneratedFrames) -> float:
    found = compare_frames(one.frames, other.frames).psnr_db
    return float("inf") if found is None else found


def test_group_offload_changes_neither_frames_nor_savings(load: Any, stock: GeneratedFrames, ask: Any) -> None:
    model = load(offload="group")
    for _ in range(2):
        run = generate_frames(model, ask(model.spec))
        assert (run.frames == stock.frames).all()
        assert run.report.savings == pytest.approx(stock.report.savings)


@pytest.mark.parametrize("cache", STEP_CACHES, ids=lambda cache: cache.kind)
def test_a_step_cache_leaves_work_out_which_is_counted_beside_reuse(
    load: Any, stock: GeneratedFrames, ask: Any, cache: Any
) -> None:
    model = load(step_cache=cache)
    first, again = (generate_frames(model, ask(model.spec)) for _ in range(2))
    report = first.report
    assert report.skipped_flops > 0
    assert report.total.dense_flops + report.skipped_flops == stock.report.total.dense_flops
    assert report.savings_with_step_cache > report.savings > 0
    assert report.dense_steps == again.report.dense_steps != (0,)
    assert again.dense_denoise_estimate_s is None
    # Nothing of one video is left for the next.
    assert (again.frames == first.frames).all()
    assert psnr_db(first, stock) > 10


def test_the_vae_decodes_in_tiles(load: Any) -> None:
    """Frames of up to 256 pixels are one tile."""
    latents = torch.randn(1, 16, 2, 80, 80, generator=torch.Generator().manual_seed(0))
    decoded = {}
    for tiling in (False, True):
        vae, sizes = load(vae_tiling=tiling).pipe.vae, []
        vae.decoder.conv_in.register_forward_pre_hook(lambda _, args, sizes=sizes: sizes.append(args[0].shape[-2:]))
        with torch.no_grad():
            decoded[tiling] = vae.decode(latents[:, : vae.config.z_dim]).sample, len(sizes)
    # Two latent frames one by one, in 2x2 tiles.
    assert (decoded[False][1], decoded[True][1]) == (2, 8)
    assert decoded[True][0].shape == decoded[False][0].shape


def test_the_vae_decodes_the_videos_of_a_batch_one_by_one(load: Any) -> None:
    vae, sizes = load(vae_slicing=True).pipe.vae, []
    vae.decoder.conv_in.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    with torch.no_grad():
        vae.decode(torch.zeros(3, vae.config.z_dim, 1, 4, 4))
    assert sizes == [1, 1, 1]


def test_a_models_own_dtype_goes_before_the_workers(random_pipeline_folder: Path) -> None:
    spec = find_model(str(random_pipeline_folder))
    model = load_model(spec, "cpu", "float32", options=LoadOptions(dtype="bfloat16"))
    parts = (model.pipe.transformer.dtype, model.pipe.text_encoder.dtype, model.pipe.vae.dtype)
    assert parts == (torch.bfloat16, torch.bfloat16, torch.float32)
    assert model.dtype == torch.bfloat16


def test_a_profile_may_lie_elsewhere(load: Any, tmp_path: Path) -> None:
    profile = ReuseProfile(layer_factors=[1.0, 0.5])
    (tmp_path / "p.json").write_text(profile.model_dump_json())
    assert load(profile=tmp_path / "p.json").profile == profile
    (tmp_path / "p.json").write_text(ReuseProfile(layer_factors=[1.0]).model_dump_json())
    with pytest.raises(ModelLoadFailed, match=r"p\.json cannot be used"):
        load(profile=tmp_path / "p.json")


@pytest.mark.parametrize("option", [{"offload": "model"}, {"device_map": "balanced"}], ids=str)
def test_what_needs_a_gpu_says_so(load: Any, option: dict[str, str]) -> None:
    (name, value), *_ = option.items()
    with pytest.raises(ModelLoadFailed, match=f"{name} = '{value}' needs a CUDA device, and this is cpu"):
        load(**option)


@pytest.mark.parametrize(
    ("quantization", "message"),
    [
        ({"backend": "torchao", "components": ["unet"]}, "no component 'unet', only .*transformer"),
        ({"backend": "bitsandbytes_4bit"}, "bitsandbytes_4bit needs the package bitsandbytes"),
        ({"backend": "torchao"}, "torchao needs the package torchao"),
    ],
    ids=str,
)
def test_a_quantisation_that_cannot_be_had_says_why(load: Any, quantization: dict[str, Any], message: str) -> None:
    package = message.rpartition(" ")[2]
    if "needs the package" in message and importlib.util.find_spec(package):
        pytest.skip(f"{package} is installed")
    with pytest.raises(ModelLoadFailed, match=message):
        load(quantization=Quantization.model_validate(quantization, strict=False))


def test_weights_of_8_bits_by_torchao(load: Any, model: LoadedModel, stock: GeneratedFrames, ask: Any) -> None:
    pytest.importorskip("torchao", reason="torchao is not installed: pip install 'timeripple[quantization]'")
    eight_bits = load(quantization=Quantization(backend="torchao", components=("transformer", "text_encoder")))
    for name in ("transformer", "text_encoder"):
        assert module_bytes(getattr(eight_bits.pipe, name)) < 0.6 * module_bytes(getattr(model.pipe, name)), name
    run = generate_frames(eight_bits, ask(eight_bits.spec))
    assert psnr_db(run, stock) > 30
    assert run.report.savings == pytest.approx(stock.report.savings, abs=0.05)


def test_an_unknown_class_of_torchao_is_named(load: Any) -> None:
    pytest.importorskip("torchao", reason="torchao is not installed: pip install 'timeripple[quantization]'")
    with pytest.raises(ModelLoadFailed, match="torchao has no 'Int3Config'"):
        load(quantization=Quantization(backend="torchao", options={"quant_type": "Int3Config"}))


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.usefixtures("fresh_compiler")
def test_compiled_blocks_with_a_step_cache_give_the_same_video(load: Any, ask: Any) -> None:
    cache = FirstBlockCache(kind="first_block", threshold=0.5)
    eager, compiled = load(step_cache=cache), load(step_cache=cache, compile=True)
    assert all(block._compiled_call_impl is not None for block in compiled.pipe.transformer.blocks)
    expected, run = (generate_frames(model, ask(model.spec)) for model in (eager, compiled))
    assert psnr_db(run, expected) > 50
    assert run.report.skipped_flops == expected.report.skipped_flops
