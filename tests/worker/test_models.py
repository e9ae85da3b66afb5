"""Several models in one child process."""

import json
import resource
import shutil
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from diffusers import WanTransformer3DModel

from ripple_core.contract.metrics import Retry
from ripple_core.contract.model_config import load_model_configs
from ripple_core.contract.models import BUILTIN_MODEL_FOLDER
from ripple_core.contract.request import GenerateRequest
from ripple_core.contract.validate import resolve
from worker.engine import Engine
from worker.messages import Answer, Finished, Generate, Video
from worker.settings import WorkerSettings

MEBIBYTE = 2**20
TWO = """
[[models]]
source = "builtin"
id = "one"

[[models]]
source = "builtin"
id = "two"
preload = true
warm_up = true
"""


@pytest.fixture
def models_file(tmp_path: Path) -> Path:
    path = tmp_path / "models.toml"
    path.write_text(TWO)
    return path


class Listener:
    """Keeps the end, and asks for nothing."""

    answer: Answer | None = None

    def on_progress(self, _: Any) -> None:
        pass

    def on_preview(self, _: int, __: bytes) -> None:
        pass

    def stop_wanted(self) -> bool:
        return False

    def on_end(self, answer: Answer) -> None:
        self.answer = answer


def generate(engine: Engine, settings: WorkerSettings, model_id: str, folder: Path, **fields: int) -> Finished:
    (spec,) = [config.spec for config in load_model_configs(settings) if config.spec.id == model_id]
    small = {"width": 32, "height": 32, "num_frames": 5, "num_inference_steps": 2, "seed": 1}
    request = resolve(GenerateRequest(prompt="a red circle", model=model_id, **small | fields), spec)
    listener = Listener()
    engine.run(Generate((Video("e", request, folder),)), {"e": listener})
    assert isinstance(listener.answer, Finished), listener.answer
    return listener.answer


def test_what_is_to_be_preloaded_is_loaded_before_the_first_job(models_file: Path, tmp_path: Path) -> None:
    told: list[tuple[str, ...]] = []
    settings = WorkerSettings(models_file=models_file)
    engine = Engine(settings, on_loaded=told.append)
    try:
        engine.wait_until_ready(lambda: False)
        assert told == [("two",)]
        assert generate(engine, settings, "two", tmp_path).metrics.latency_s.load == 0
        assert generate(engine, settings, "one", tmp_path).metrics.latency_s.load > 0
        assert told[-1] == ("two", "one")
    finally:
        engine.stop()


def test_models_make_room_for_one_another(models_file: Path, tmp_path: Path) -> None:
    told: list[tuple[str, ...]] = []
    # Less than two of them take.
    settings = WorkerSettings(models_file=models_file, model_memory_bytes=1_000_000)
    engine = Engine(settings, on_loaded=told.append)
    try:
        files = [generate(engine, settings, model_id, tmp_path) for model_id in ("one", "two", "one")]
        assert told[-3:] == [("one",), ("two",), ("one",)]
        assert len({answer.metrics.output.sha256 for answer in files}) == 1
    finally:
        engine.stop()


def test_preloading_more_than_fits_is_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    models_file = tmp_path / "models.toml"
    models_file.write_text(TWO.replace('id = "one"', 'id = "one"\npreload = true').replace("warm_up = true", ""))
    told: list[tuple[str, ...]] = []
    engine = Engine(WorkerSettings(models_file=models_file, model_memory_bytes=1_000_000), on_loaded=told.append)
    try:
        engine.wait_until_ready(lambda: False)
        assert told == [("one",), ("two",)]
        assert "does not fit together; unloaded again: one" in capfd.readouterr().err
    finally:
        engine.stop()


def wide_model(folder: Path, num_bytes: int) -> Path:
    """The built-in model with untrained feed-forward layers that take so much memory."""
    shutil.copytree(BUILTIN_MODEL_FOLDER, folder)
    config = json.loads((folder / "transformer" / "config.json").read_text())
    inner = config["num_attention_heads"] * config["attention_head_dim"]
    config["ffn_dim"] = num_bytes // (config["num_layers"] * 2 * inner * torch.float32.itemsize)
    WanTransformer3DModel.from_config(config).save_pretrained(folder / "transformer")
    return folder


def test_a_video_without_enough_memory_has_the_other_models_unloaded(tmp_path: Path) -> None:
    wide = wide_model(tmp_path / "wide", 500 * MEBIBYTE)
    models_file = tmp_path / "models.toml"
    models_file.write_text(f'models = [{{source = "builtin", id = "small"}}, {{source = "{wide}", id = "wide"}}]')
    told: list[tuple[str, ...]] = []
    settings = WorkerSettings(models_file=models_file, device="cpu", dtype="float32", retry_out_of_memory=False)
    engine = Engine(settings, on_loaded=told.append)
    large = {"width": 192, "height": 192, "num_frames": 17, "num_inference_steps": 1}
    try:
        generate(engine, settings, "wide", tmp_path)
        generate(engine, settings, "small", tmp_path)
        assert told[-1] == ("wide", "small")
        assert engine.pid is not None
        limit = psutil.Process(engine.pid).memory_info().vms + 30 * MEBIBYTE
        resource.prlimit(engine.pid, resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
        metrics = generate(engine, settings, "small", tmp_path, **large).metrics
        assert metrics.retries == [Retry(reason="out_of_memory", remedy="unloaded_models")]
        assert told[-1] == ("small",)
        assert generate(engine, settings, "small", tmp_path, **large).metrics.retries == []
    finally:
        engine.stop()
