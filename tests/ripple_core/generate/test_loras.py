"""LoRAs on the transformer for the time of one video."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import WanPipeline
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file

from ripple_core.contract.errors import GenerationCancelled, LoraLoadFailed
from ripple_core.contract.models import BUILTIN_MODEL_FOLDER, find_model
from ripple_core.generate import LoadedModel, generate_video, load_model

# Every pixel of every frame counts; two steps run dense, and quickly.
PIXELS = {"output": {"format": "zip"}, "num_inference_steps": 2}
REUSING = {"num_inference_steps": 5}


def save_lora(transformer: Any, folder: Path, name: str, seed: int) -> None:
    """A LoRA of all layers' queries and values, as a training script of diffusers saves it."""
    adapted = copy.deepcopy(transformer)
    config = LoraConfig(r=2, lora_alpha=4, target_modules=["to_q", "to_v"], init_lora_weights=False)
    torch.manual_seed(seed)
    adapted.add_adapter(config)
    layers = get_peft_model_state_dict(adapted)
    WanPipeline.save_lora_weights(folder, transformer_lora_layers=layers, weight_name=f"{name}.safetensors")


@pytest.fixture(scope="module")
def folder(model: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("loras")
    for seed, name in enumerate(("style", "hand-drawn.v1.2")):
        save_lora(model.pipe.transformer, folder, name, seed)
    fits_nothing = {"transformer.blocks.9.attn1.to_q.lora_A.weight": torch.ones(2, 24)}
    fits_nothing["transformer.blocks.9.attn1.to_q.lora_B.weight"] = torch.ones(24, 2)
    save_file(fits_nothing, folder / "other-layers.safetensors")
    other_width = {"transformer.blocks.0.attn1.to_q.lora_A.weight": torch.ones(2, 36)}
    other_width["transformer.blocks.0.attn1.to_q.lora_B.weight"] = torch.ones(36, 2)
    save_file(other_width, folder / "other-width.safetensors")
    save_file({"unet.to_q.lora_A.weight": torch.ones(2, 24)}, folder / "of-an-image-model.safetensors")
    save_file({"weight": torch.ones(3)}, folder / "no-lora.safetensors")
    (folder / "broken.safetensors").write_bytes(b"broken")
    torch.save(other_width, folder / "pickle.safetensors")
    return folder


@pytest.fixture(scope="module")
def plain(model: LoadedModel, ask: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The frames without a LoRA, before any."""
    return digest(model, ask(model.spec, **PIXELS), tmp_path_factory.mktemp("plain"))


def digest(model: LoadedModel, asked: Any, tmp_path: Path, lora_dir: Path | None = None) -> str:
    return generate_video(model, asked, tmp_path, lora_dir=lora_dir).output.sha256


def loras(**scales: float) -> dict[str, Any]:
    names = {"style": "style", "drawn": "hand-drawn.v1.2"}
    return PIXELS | {"loras": [{"name": names.get(name, name), "scale": scale} for name, scale in scales.items()]}


def test_a_lora_changes_its_own_video_only(
    model: LoadedModel, ask: Any, folder: Path, plain: str, tmp_path: Path
) -> None:
    with_lora = digest(model, ask(model.spec, **loras(style=1.0)), tmp_path, folder)
    assert with_lora != plain
    assert digest(model, ask(model.spec, **PIXELS), tmp_path) == plain
    assert digest(model, ask(model.spec, **loras(style=1.0)), tmp_path, folder) == with_lora
    assert list(model.pipe.transformer.state_dict()) == list(load_model(model.spec).pipe.transformer.state_dict())


def test_a_scale_of_0_is_no_lora(model: LoadedModel, ask: Any, folder: Path, plain: str, tmp_path: Path) -> None:
    assert digest(model, ask(model.spec, **loras(style=0.0)), tmp_path, folder) == plain


def test_each_of_two_loras_counts_by_its_scale(model: LoadedModel, ask: Any, folder: Path, tmp_path: Path) -> None:
    def of(**scales: float) -> str:
        return digest(model, ask(model.spec, **loras(**scales)), tmp_path, folder)

    both, swapped_scales = of(style=1.0, drawn=0.5), of(style=0.5, drawn=1.0)
    assert len({both, swapped_scales, of(style=1.0), of(drawn=0.5), of(style=-1.0)}) == 5
    assert of(style=1.0, drawn=0.0) == of(style=1.0)


def test_a_lora_may_come_twice(model: LoadedModel, ask: Any, folder: Path, tmp_path: Path) -> None:
    twice = PIXELS | {"loras": [{"name": "style", "scale": 1.0}, {"name": "style", "scale": -1.0}]}
    frames = generate_video(model, ask(model.spec, **twice), tmp_path, lora_dir=folder)
    assert frames.output.frames == 9


def test_the_dense_twin_of_a_quality_check_has_the_lora_too(
    model: LoadedModel, ask: Any, folder: Path, tmp_path: Path
) -> None:
    asked = ask(model.spec, quality_check=True, **(loras(style=1.0) | REUSING))
    quality = generate_video(model, asked, tmp_path, lora_dir=folder).quality
    without = generate_video(model, ask(model.spec, quality_check=True), tmp_path).quality
    assert quality is not None
    assert without is not None
    # The LoRA changes far more than reuse does: a twin without it would be unlike.
    assert quality.psnr_db == pytest.approx(without.psnr_db, abs=6)


def test_loading_a_lora_is_its_own_stage(model: LoadedModel, ask: Any, folder: Path, tmp_path: Path) -> None:
    stages: list[str] = []
    asked = ask(model.spec, **(loras(style=1.0) | REUSING))
    metrics = generate_video(model, asked, tmp_path, lambda progress: stages.append(progress.stage), lora_dir=folder)
    assert stages[0] == "load"
    assert metrics.latency_s.load > 0
    assert metrics.attention.savings > 0


@pytest.mark.parametrize(
    "name", ["other-layers", "other-width", "of-an-image-model", "no-lora", "broken", "pickle", "absent"]
)
def test_a_file_that_cannot_be_used_is_named_and_spoils_nothing(
    model: LoadedModel, ask: Any, folder: Path, plain: str, tmp_path: Path, name: str
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    # A good one that is on the transformer already comes off too.
    asked = ask(model.spec, **loras(style=1.0, **{name: 1.0}))
    with pytest.raises(LoraLoadFailed, match=f"LoRA '{name}' is") as raised:
        generate_video(model, asked, empty, lora_dir=folder)
    assert raised.value.code == "lora_load_failed"
    assert "\n" not in str(raised.value)
    assert list(empty.iterdir()) == []
    assert digest(model, ask(model.spec, **PIXELS), tmp_path) == plain


def test_without_a_folder_no_lora_is_found(model: LoadedModel, ask: Any, tmp_path: Path) -> None:
    with pytest.raises(LoraLoadFailed, match="RIPPLE_LORA_DIR"):
        generate_video(model, ask(model.spec, **loras(style=1.0)), tmp_path)


def test_a_cancelled_video_takes_its_lora_along(
    model: LoadedModel, ask: Any, folder: Path, plain: str, tmp_path: Path
) -> None:
    steps: list[int] = []
    with pytest.raises(GenerationCancelled):
        generate_video(
            model,
            ask(model.spec, **loras(style=1.0)),
            tmp_path,
            lambda progress: steps.append(progress.step),
            lambda: steps[-1] >= 1,
            lora_dir=folder,
        )
    assert digest(model, ask(model.spec, **PIXELS), tmp_path) == plain


def test_a_lora_goes_on_both_of_two_transformers(ask: Any, folder: Path, tmp_path: Path, random_pipeline: Any) -> None:
    random_pipeline.register_modules(transformer_2=copy.deepcopy(random_pipeline.transformer))
    random_pipeline.register_to_config(boundary_ratio=0.8)
    random_pipeline.save_pretrained(tmp_path / "two")
    two = load_model(find_model(str(tmp_path / "two")))
    plain = digest(two, ask(two.spec, **PIXELS), tmp_path)
    changed: list[bool] = []

    def look(_: object) -> None:
        parts = (two.pipe.transformer, two.pipe.transformer_2)
        changed.append(all(any("lora" in name for name, _ in part.named_modules()) for part in parts))

    generate_video(two, ask(two.spec, **loras(style=1.0)), tmp_path, look, lora_dir=folder)
    assert changed[-2]
    assert digest(two, ask(two.spec, **PIXELS), tmp_path) == plain


def test_a_lora_of_the_built_in_model(ask: Any, tmp_path: Path) -> None:
    builtin = load_model(find_model(str(BUILTIN_MODEL_FOLDER)))
    save_lora(builtin.pipe.transformer, tmp_path, "style", 0)
    before = digest(builtin, ask(builtin.spec, **PIXELS), tmp_path)
    assert digest(builtin, ask(builtin.spec, **loras(style=1.0)), tmp_path, tmp_path) != before
    assert digest(builtin, ask(builtin.spec, **loras(style=0.0)), tmp_path, tmp_path) == before
    assert digest(builtin, ask(builtin.spec, **PIXELS), tmp_path) == before
