"""Several models in one device's memory."""

import gc
import shutil
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from ripple_core.contract.errors import ModelLoadFailed, UnknownModel
from ripple_core.contract.model_config import ModelConfig, Quantization
from ripple_core.generate.model_cache import ModelCache, device_memory_bytes, expected_bytes

CPU = torch.device("cpu")


@pytest.fixture
def configs(random_pipeline_folder: Path) -> list[ModelConfig]:
    return [ModelConfig(source=str(random_pipeline_folder), id=name) for name in "abc"]


@pytest.fixture(scope="module")
def one_model_bytes(random_pipeline_folder: Path) -> int:
    cache = ModelCache([ModelConfig(source=str(random_pipeline_folder), id="x")], "cpu")
    cache.get("x")
    return cache.loaded_bytes


def test_a_model_is_loaded_once(configs: list[ModelConfig]) -> None:
    cache = ModelCache(configs, "cpu")
    assert cache.loaded == ()
    assert cache.get("a") is cache.get("a")
    assert cache.get("a").spec.id == "a"
    assert cache.loaded == ("a",)
    with pytest.raises(UnknownModel, match="no model 'x'; it has: a, b, c"):
        cache.get("x")


def test_the_least_recently_used_makes_room(configs: list[ModelConfig], one_model_bytes: int) -> None:
    cache = ModelCache(configs, "cpu", memory_limit_bytes=int(2.5 * one_model_bytes))
    first = weakref.ref(cache.get("a").pipe.transformer)
    cache.get("b")
    cache.get("a")
    assert cache.loaded == ("b", "a")
    cache.get("c")
    assert cache.loaded == ("a", "c")
    assert first() is not None
    cache.get("b")
    assert cache.loaded == ("c", "b")
    assert first() is None, "its memory is not free"
    assert cache.loaded_bytes <= 2.5 * one_model_bytes


def test_a_model_larger_than_the_limit_is_loaded_alone(configs: list[ModelConfig], one_model_bytes: int) -> None:
    cache = ModelCache(configs, "cpu", memory_limit_bytes=one_model_bytes // 2)
    for name in "ab":
        cache.get(name)
        assert cache.loaded == (name,)


def test_keeping_one_alone_tells_whether_that_freed_anything(configs: list[ModelConfig]) -> None:
    cache = ModelCache(configs, "cpu")
    other = weakref.ref(cache.get("a").pipe.vae)
    cache.get("b")
    assert cache.keep_only("b")
    assert (cache.loaded, other()) == (("b",), None)
    assert not cache.keep_only("b")


def test_changing_models_again_and_again_takes_no_more_memory() -> None:
    cache = ModelCache([ModelConfig(source="builtin", id=name) for name in "ab"], "cpu", memory_limit_bytes=1)
    for name in "ab":
        cache.get(name)
    model_bytes, before = cache.loaded_bytes, psutil.Process().memory_info().rss
    for name in "ab" * 4:
        cache.get(name)
    gc.collect()
    assert psutil.Process().memory_info().rss - before < 2 * model_bytes


def test_a_model_that_cannot_be_loaded_does_not_end_the_others(
    configs: list[ModelConfig], random_pipeline_folder: Path, tmp_path: Path
) -> None:
    broken = Path(shutil.copytree(random_pipeline_folder, tmp_path / "broken"))
    next((broken / "transformer").glob("*.safetensors")).write_bytes(b"no weights")
    cache = ModelCache([*configs, ModelConfig(source=str(broken))], "cpu")
    cache.get("a")
    with pytest.raises(ModelLoadFailed):
        cache.get("broken")
    assert cache.loaded == ("a",)
    cache.get("b")


@pytest.mark.parametrize("options", [{}, {"dtype": "bfloat16"}], ids=str)
@pytest.mark.parametrize("source", ["builtin", "random"])
def test_what_a_model_will_take_is_known_from_its_files(
    random_pipeline_folder: Path, source: str, options: dict[str, Any]
) -> None:
    config = ModelConfig(source="builtin" if source == "builtin" else str(random_pipeline_folder), **options)
    dtype = torch.bfloat16 if options else torch.float32
    cache = ModelCache([config], "cpu")
    cache.get(config.spec.id)
    # Buffers that are computed are in no file.
    assert expected_bytes(config, dtype, CPU) == pytest.approx(cache.loaded_bytes, rel=0.15)


def test_offloaded_parts_take_their_turns_on_a_gpu_and_all_of_a_cpu(random_pipeline_folder: Path) -> None:
    def expect(device: str, **options: Any) -> int:
        config = ModelConfig(source=str(random_pipeline_folder), **options)
        return expected_bytes(config, torch.float32, torch.device(device))

    everything = expect("cuda")
    assert 0 < expect("cuda", offload="model") < everything
    assert expect("cuda", offload="group") == 0
    assert expect("cpu", offload="group") == expect("cpu", offload="model") == everything
    quantized = expect("cuda", quantization=Quantization(backend="bitsandbytes_4bit"))
    assert 0 < quantized < everything


def test_a_checkpoint_that_is_not_on_this_machine_yet_is_expected_to_take_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert expected_bytes(ModelConfig(source="Wan-AI/Wan2.1-T2V-14B-Diffusers"), torch.bfloat16, CPU) == 0


def test_the_limit_follows_the_memory_of_the_machine() -> None:
    assert device_memory_bytes(CPU) <= psutil.virtual_memory().total
    assert device_memory_bytes(CPU) > 2**30


@pytest.fixture
def large_pipeline_folder(random_pipeline: Any, tmp_path: Path) -> Path:
    """Weights of 150 megabytes, so that the process's memory is about them."""
    large = {"ffn_dim": 400_000}
    random_pipeline.transformer = type(random_pipeline.transformer).from_config(
        dict(random_pipeline.transformer.config) | large
    )
    random_pipeline.save_pretrained(tmp_path / "large")
    return tmp_path / "large"


OUT_OF_MEMORY = """
import resource, sys
from pathlib import Path
from ripple_core.contract.model_config import ModelConfig
from ripple_core.generate.model_cache import ModelCache

cache = ModelCache([ModelConfig(source=sys.argv[1], id=name) for name in "ab"], "cpu")
cache.get("a")
taken = int(next(line for line in Path("/proc/self/status").read_text().splitlines() if "VmData" in line).split()[1])
resource.setrlimit(resource.RLIMIT_DATA, (taken * 1024 + cache.loaded_bytes // 2,) * 2)
cache.get("b")
print(*cache.loaded)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA counts mapped memory on Linux only")
def test_models_make_room_where_memory_ends_before_the_limit_does(large_pipeline_folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", OUT_OF_MEMORY, str(large_pipeline_folder)], capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["b"], done.stderr
