"""The models file: what it may say, and what is said about it when it is wrong."""

import shutil
from pathlib import Path

import pytest

from ripple_core.contract.errors import ModelsFileInvalid, UnknownModel
from ripple_core.contract.model_config import FirstBlockCache, ModelConfig, Quantization, load_model_configs
from ripple_core.contract.models import BUILTIN_MODEL_ID, find_model
from ripple_core.contract.request import GenerateRequest, ReuseSettings
from ripple_core.contract.settings import SharedSettings
from ripple_core.contract.validate import resolve

TOY = '[[models]]\nsource = "builtin"\n'
EVERY_OPTION = """
[[models]]
source = "Wan-AI/Wan2.1-T2V-14B-Diffusers"
preload = true
warm_up = true
dtype = "bfloat16"
offload = "group"
vae_tiling = true
vae_slicing = true
compile = true
max_batch = 4
max_work = 1000000
reuse = {aggressiveness = 0.3, mode = "ripple"}
quantization = {backend = "bitsandbytes_4bit", components = ["transformer"], options = {load_in_4bit = true}}
step_cache = {kind = "first_block", threshold = 0.1}

[[models]]
source = "builtin"
id = "toy"
description = "the small one"
"""


def read(folder: Path, text: str) -> list[ModelConfig]:
    path = folder / "models.toml"
    path.write_text(text)
    return load_model_configs(SharedSettings(models_file=path))


def test_without_a_file_there_is_one_model_with_every_default(random_pipeline_folder: Path) -> None:
    (config,) = load_model_configs(SharedSettings(model=str(random_pipeline_folder)))
    assert config == ModelConfig(source=str(random_pipeline_folder))
    assert config.spec == find_model(str(random_pipeline_folder))
    with pytest.raises(UnknownModel):
        load_model_configs(SharedSettings(model="no/such"))


def test_a_file_holds_models_in_its_order_with_their_options(tmp_path: Path) -> None:
    large, toy = read(tmp_path, EVERY_OPTION)
    assert (large.offload, large.max_batch, large.preload, large.compile) == ("group", 4, True, True)
    assert large.quantization == Quantization(backend="bitsandbytes_4bit", options={"load_in_4bit": True})
    assert large.step_cache == FirstBlockCache(kind="first_block", threshold=0.1)
    assert (toy.spec.id, toy.spec.description) == ("toy", "the small one")
    assert toy.spec.source == find_model("builtin").source
    assert (toy.offload, toy.preload, toy.quantization) == ("none", False, None)


def test_what_clients_see_follows_the_file(tmp_path: Path) -> None:
    spec = read(tmp_path, EVERY_OPTION)[0].spec
    assert spec.work_limit == 1_000_000
    assert spec.defaults.reuse == ReuseSettings(aggressiveness=0.3, mode="ripple")
    assert spec.defaults.width == find_model(spec.id).defaults.width


def test_folders_and_profiles_lie_beside_the_file(tmp_path: Path, random_pipeline_folder: Path) -> None:
    shutil.copytree(random_pipeline_folder, tmp_path / "own")
    (tmp_path / "p.json").write_text("{}")
    (config,) = read(tmp_path, '[[models]]\nsource = "own"\nprofile = "p.json"')
    assert config.spec.source == str((tmp_path / "own").resolve())
    assert config.profile == (tmp_path / "p.json").resolve()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TOY + 'offloading = "x"', r"model 1 \(builtin\), offloading: Extra inputs"),
        ('[[models]]\nid = "a"', r"model 1 \(a\), source: Field required"),
        (TOY + 'id = "a b"', r"model 1 \(a b\), id: String should match"),
        (TOY + '[[models]]\nsource = "no/such"', r"model 2 \(no/such\), source: Model 'no/such'"),
        (TOY + "reuse = {aggressiveness = 2}", r"model 1 \(builtin\), reuse.aggressiveness: "),
        (TOY + 'step_cache = {kind = "x"}', r"model 1 \(builtin\), step_cache: "),
        (TOY + 'profile = "gone.json"', r"model 1 \(builtin\), profile: there is no file"),
        (TOY + 'offload = "model"\ncontext_parallel = 2', "offload and context_parallel exclude"),
        (TOY + TOY, f"two models have the id '{BUILTIN_MODEL_ID}'"),
        (TOY + 'context_parallel = 3\nstep_cache = {kind = "sea"}', "context_parallel and step_cache exclude"),
        (TOY + "warm_up = true", "warm_up needs preload"),
        ("models = []", "one at least"),
        ("x = 1", r"\[\[models\]\] tables"),
        ('models = ["builtin"]', "model 1: Input should be a valid dict"),
        ("[[models]", "cannot be read"),
    ],
)
def test_what_is_wrong_is_named_with_file_model_and_field(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ModelsFileInvalid, match=message) as caught:
        read(tmp_path, text)
    assert str(tmp_path / "models.toml") in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelsFileInvalid, match=r"gone\.toml cannot be read"):
        load_model_configs(SharedSettings(models_file=tmp_path / "gone.toml"))


@pytest.mark.parametrize(
    ("asked", "aggressiveness", "mode"),
    [
        ({}, 0.3, "ripple"),
        ({"reuse": {}}, 0.3, "ripple"),
        ({"reuse": {"mode": "channel"}}, 0.3, "channel"),
        ({"reuse": {"aggressiveness": 0.5}}, 0.5, "ripple"),
        ({"reuse": {"aggressiveness": 0.5, "mode": "auto"}}, 0.5, "auto"),
    ],
)
def test_a_request_takes_what_it_leaves_out_of_reuse_from_the_model(
    asked: dict[str, object], aggressiveness: float, mode: str
) -> None:
    spec = ModelConfig(source="builtin", reuse=ReuseSettings(aggressiveness=0.3, mode="ripple")).spec
    resolved = resolve(GenerateRequest.model_validate({"prompt": "x"} | asked), spec)
    assert (resolved.reuse.aggressiveness, resolved.reuse.mode) == (aggressiveness, mode)
