"""What a model can take is read from its folder."""

import json
from pathlib import Path

import pytest

from ripple_core.contract.architecture import Architecture
from ripple_core.contract.errors import UnknownModel
from ripple_core.contract.models import BUILTIN_MODEL_ID, CATALOGUE, find_model


def test_the_built_in_model_is_found_under_both_names() -> None:
    assert find_model("builtin") == find_model(BUILTIN_MODEL_ID)
    assert find_model("builtin").defaults.num_frames == 17


def test_a_folders_geometry_comes_from_its_parts(random_pipeline_folder: Path) -> None:
    spec = find_model(str(random_pipeline_folder))
    assert (spec.id, spec.size_multiple, spec.frame_multiple) == ("random", 16, 2)
    assert spec.source == str(random_pipeline_folder)


def test_a_folders_architecture_comes_from_its_parts(random_pipeline_folder: Path) -> None:
    assert find_model(str(random_pipeline_folder)).architecture == Architecture(
        num_layers=2, num_heads=2, head_dim=12, ffn_dim=32, patch_size=(1, 2, 2), vae_spatial=4, vae_temporal=2
    )


def test_clients_see_neither_source_nor_architecture() -> None:
    assert {"source", "architecture"}.isdisjoint(find_model("builtin").model_dump())


def test_image_to_video_pipelines_take_an_image_and_others_do_not(
    random_pipeline_folder: Path, image_pipeline_folder: Path
) -> None:
    assert find_model(str(image_pipeline_folder)).takes_image
    assert not find_model(str(random_pipeline_folder)).takes_image
    assert {name for name, spec in CATALOGUE.items() if spec.takes_image} == {"Wan-AI/Wan2.1-I2V-14B-480P-Diffusers"}


@pytest.mark.parametrize("name", CATALOGUE)
def test_catalogue_defaults_suit_their_model(name: str) -> None:
    spec = find_model(name)
    defaults = spec.defaults
    assert defaults.width % spec.size_multiple == defaults.height % spec.size_multiple == 0
    assert defaults.num_frames % spec.frame_multiple == 1


def test_an_unknown_name_lists_what_is_known() -> None:
    with pytest.raises(UnknownModel, match=r"neither a folder.*builtin.*Wan2\.1-T2V-1\.3B"):
        find_model("no/such-model")


def test_another_pipeline_class_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))
    with pytest.raises(
        UnknownModel, match=r"StableDiffusionPipeline; supported are: WanPipeline, WanImageToVideoPipeline"
    ):
        find_model(str(tmp_path))


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"_class_name": "WanPipeline"}'])
def test_a_broken_folder_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "model_index.json").write_text(content)
    with pytest.raises(UnknownModel, match="not a complete pipeline folder"):
        find_model(str(tmp_path))
