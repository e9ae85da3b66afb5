"""The parent and its child process, on the built-in model."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from redis import RedisError
from safetensors.torch import save_file

from ripple_core.contract.job import Progress
from ripple_core.contract.models import find_model
from ripple_core.contract.request import GenerateRequest, LoraSettings
from ripple_core.contract.validate import resolve
from worker.engine import Engine, LossReason
from worker.messages import Answer, Failed, Finished, Generate, Stopped, Video
from worker.settings import WorkerSettings


@pytest.fixture
def losses() -> list[LossReason]:
    """Why the child ended each time that it should not have."""
    return []


@pytest.fixture
def engine(losses: list[LossReason]) -> Iterator[Engine]:
    engine = Engine(WorkerSettings(cancel_grace_seconds=30), on_lost=losses.append)
    engine.start()
    yield engine
    engine.stop()


def job(folder: Path, loras: tuple[str, ...] = (), **fields: Any) -> Generate:
    small = {"width": 32, "height": 32, "num_frames": 5, "num_inference_steps": 4, "seed": 1} | fields
    request = GenerateRequest(prompt="a red circle", loras=[LoraSettings(name=name) for name in loras], **small)
    return Generate((Video("e", resolve(request, find_model("builtin"), loras=loras), folder),))


@dataclass
class Follower:
    """Keeps what it hears, and acts on it."""

    stop_after_step: int | None = None
    react: Callable[[Progress], None] = lambda _: None
    seen: list[Progress] = field(default_factory=list)
    previews: list[tuple[int, bytes]] = field(default_factory=list)
    answer: Any = None

    def on_progress(self, progress: Progress) -> None:
        self.seen.append(progress)
        self.react(progress)

    def on_preview(self, step: int, preview: bytes) -> None:
        self.previews.append((step, preview))

    def stop_wanted(self) -> bool:
        return self.stop_after_step is not None and bool(self.seen) and self.seen[-1].step >= self.stop_after_step

    def on_end(self, answer: Answer) -> None:
        assert self.answer is None, "told twice"
        self.answer = answer


def follow(engine: Engine, task: Generate, follower: Follower) -> Any:
    engine.run(task, {"e": follower})
    assert follower.answer is not None
    return follower.answer


def run(engine: Engine, task: Generate, stop_after_step: int | None = None) -> tuple[Any, list[Progress]]:
    follower = Follower(stop_after_step)
    return follow(engine, task, follower), follower.seen


def test_the_second_job_finds_the_model_loaded(engine: Engine, tmp_path: Path) -> None:
    first, seen_first = run(engine, job(tmp_path))
    second, seen_second = run(engine, job(tmp_path))
    assert isinstance(first, Finished)
    assert isinstance(second, Finished)
    assert first.metrics.latency_s.load > 0
    assert second.metrics.latency_s.load == 0
    # Steps take longer the first time.
    assert first.metrics.dense_denoise_estimate_s is None
    assert second.metrics.dense_denoise_estimate_s is not None
    assert [progress.stage for progress in seen_first][:2] == ["load", "text_encode"]
    assert "load" not in {progress.stage for progress in seen_second}
    assert [progress.step for progress in seen_second if progress.stage == "denoise"] == [0, 1, 2, 3, 4]
    assert first.metrics.output.sha256 == second.metrics.output.sha256


def test_a_stop_comes_within_a_step_and_the_next_job_runs(engine: Engine, tmp_path: Path) -> None:
    answer, seen = run(engine, job(tmp_path, num_inference_steps=200), stop_after_step=3)
    assert isinstance(answer, Stopped)
    assert seen[-1].step < 200
    assert isinstance(run(engine, job(tmp_path))[0], Finished)


def test_a_job_that_fails_gives_a_code_and_the_next_job_runs(engine: Engine, tmp_path: Path) -> None:
    answer, _ = run(engine, job(tmp_path / "no such folder"))
    assert isinstance(answer, Failed)
    assert answer.error.code == "generation_failed"
    assert answer.error.message
    assert "\n" not in answer.error.message
    assert isinstance(run(engine, job(tmp_path))[0], Finished)


@pytest.mark.parametrize("stage", ["load", "denoise"])
def test_a_killed_child_fails_its_job_only(
    engine: Engine, losses: list[LossReason], tmp_path: Path, stage: str
) -> None:
    killed = False

    def kill(progress: Progress) -> None:
        nonlocal killed
        if progress.stage == stage and not killed:
            killed = True
            assert engine.pid is not None
            os.kill(engine.pid, signal.SIGKILL)

    answer = follow(engine, job(tmp_path, num_inference_steps=100), Follower(react=kill))
    assert isinstance(answer, Failed)
    assert answer.error.code == "worker_lost"
    assert "-9" in answer.error.message
    assert losses == ["died"]
    assert isinstance(run(engine, job(tmp_path))[0], Finished)


def test_a_job_that_nobody_follows_any_more_does_not_answer_for_the_next(
    engine: Engine, losses: list[LossReason], tmp_path: Path
) -> None:
    def lose_the_store(_: Progress) -> None:
        raise RedisError("Redis is away")

    with pytest.raises(RedisError):
        follow(engine, job(tmp_path, num_inference_steps=50), Follower(react=lose_the_store))
    assert losses == ["abandoned"]
    answer, seen = run(engine, job(tmp_path))
    assert isinstance(answer, Finished)
    assert [progress.step for progress in seen if progress.stage == "denoise"] == [0, 1, 2, 3, 4]


def test_a_model_that_cannot_be_loaded_fails_the_job_and_can_be_mended(
    copied_model_folder: Path, tmp_path: Path
) -> None:
    weights = copied_model_folder / "transformer" / "diffusion_pytorch_model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(b"broken")
    engine = Engine(WorkerSettings(model=str(copied_model_folder)))
    try:
        answer, _ = run(engine, job(tmp_path))
        assert isinstance(answer, Failed)
        assert answer.error.code == "model_load_failed"
        weights.write_bytes(content)
        assert isinstance(run(engine, job(tmp_path))[0], Finished)
    finally:
        engine.stop()


def test_loras_come_from_the_settings_folder(tmp_path: Path) -> None:
    lora_dir, videos = tmp_path / "loras", tmp_path / "videos"
    lora_dir.mkdir()
    videos.mkdir()
    layer = "transformer.blocks.0.attn1.to_q.lora"
    weights = {f"{layer}_A.weight": torch.ones(1, 192), f"{layer}_B.weight": torch.ones(192, 1)}
    save_file(weights, lora_dir / "style.safetensors")
    engine = Engine(WorkerSettings(lora_dir=lora_dir))
    try:
        answers = [run(engine, job(videos, loras))[0] for loras in ((), ("style",), ("absent",), ())]
    finally:
        engine.stop()
    plain, with_lora, failed, after = answers
    assert isinstance(failed, Failed)
    assert failed.error.code == "lora_load_failed"
    assert "'absent'" in failed.error.message
    assert plain.metrics.output.sha256 == after.metrics.output.sha256 != with_lora.metrics.output.sha256


def test_a_video_begins_from_its_image(copied_model_folder: Path, tmp_path: Path) -> None:
    # The built-in model as Wan 2.2 5B does it: the first frame's latents stand in place of noise.
    index = copied_model_folder / "model_index.json"
    changes = {"_class_name": "WanImageToVideoPipeline", "expand_timesteps": True}
    index.write_text(json.dumps(json.loads(index.read_text()) | changes))
    for name, colour in (("red", (200, 40, 40)), ("blue", (40, 40, 200))):
        Image.new("RGB", (50, 40), colour).save(tmp_path / f"{name}.png")
    spec = find_model(str(copied_model_folder))
    text = GenerateRequest(prompt="a red circle", width=32, height=32, num_frames=5, num_inference_steps=4, seed=1)
    request = resolve(text, spec, image_sha256="0" * 64)
    engine = Engine(WorkerSettings(model=str(copied_model_folder)))
    try:
        red, blue, none = (
            run(engine, Generate((Video("e", request, tmp_path, image),)))[0]
            for image in (tmp_path / "red.png", tmp_path / "blue.png", None)
        )
    finally:
        engine.stop()
    assert red.metrics.output.sha256 != blue.metrics.output.sha256
    assert isinstance(none, Failed)
    assert "image" in none.error.message


PARENT = """
import time
from worker.engine import Engine
from worker.settings import WorkerSettings
if __name__ == "__main__":
    engine = Engine(WorkerSettings())
    engine.start()
    print(engine.pid, flush=True)
    time.sleep(60)
"""


def test_the_child_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = Path(f"/proc/{int(parent.stdout.readline())}")
    assert child.exists()
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 30
    while child.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not child.exists()


def test_a_child_that_died_between_two_jobs_costs_the_next_one_nothing(engine: Engine, tmp_path: Path) -> None:
    for _ in range(2):
        assert engine.pid is not None
        # No time for it to be noticed.
        os.kill(engine.pid, signal.SIGKILL)
        assert isinstance(run(engine, job(tmp_path))[0], Finished)
