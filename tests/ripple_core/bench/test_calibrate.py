"""Calibration as a whole, on a pipeline whose first layer bears anything and whose second bears little."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import WanPipeline
from typer.testing import CliRunner

from ripple_core.attention import ReuseProfile
from ripple_core.bench.calibrate import Target, _loop_parts, calibrate
from ripple_core.bench.clip_set import ClipSet
from ripple_core.cli.main import app
from ripple_core.contract.errors import InvalidRequest, ModelLoadFailed
from ripple_core.contract.models import find_model
from ripple_core.contract.request import GenerateRequest, ReuseSettings
from ripple_core.contract.validate import resolve
from ripple_core.generate import generate_video, load_model

SIZE = {"width": 64, "height": 48, "num_frames": 17, "num_inference_steps": 5}
CLIPS = ClipSet(["a red circle", "a blue ring"], **SIZE)
OPTIONS = ["--clips", "1", "--width", "64", "--height", "48", "--frames", "17", "--steps", "5"]


@pytest.fixture(scope="module")
def folder(random_pipeline_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The random pipeline with a first layer whose attention changes nothing."""
    folder = tmp_path_factory.mktemp("uneven") / "uneven"
    pipe = WanPipeline.from_pretrained(random_pipeline_folder)
    with torch.no_grad():
        first, second = (block.attn1 for block in pipe.transformer.blocks)
        first.to_out[0].weight.zero_()
        first.to_out[0].bias.zero_()
        second.to_v.weight.mul_(8)
    pipe.save_pretrained(folder)
    return folder


@pytest.fixture
def own_folder(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "uneven"))


def test_a_profile_meets_its_target_better_than_the_uniform_setting_and_is_used(
    own_folder: Path, tmp_path: Path
) -> None:
    # A broken profile is no obstacle to a new one.
    (own_folder / "reuse_profile.json").write_text("{")
    result = CliRunner().invoke(
        app, ["calibrate", str(own_folder), "--savings", "0.4", *OPTIONS, "--work", str(tmp_path / "work")]
    )
    assert result.exit_code == 0, result.output
    written = json.loads((own_folder / "reuse_profile.json").read_text())
    first, second = written["layer_factors"]
    assert first > 1 > second
    assert len(written["step_factors"]) == 5
    evidence = written["evidence"]
    assert evidence["target"] == "at least 40% saved"
    assert evidence["savings"] >= 0.4
    assert evidence["psnr_db"] > evidence["uniform_psnr_db"]
    assert evidence["uniform_savings"] <= evidence["savings"]

    model = load_model(find_model(str(own_folder)))
    # The clip that was checked: the same prompt, seed and dial save what the evidence says.
    request = GenerateRequest(prompt="an orange triangle moving right on a grey background", seed=1,
                              reuse=ReuseSettings(aggressiveness=0.5, mode="ripple"), **SIZE)  # fmt: skip
    metrics = generate_video(model, resolve(request, model.spec), own_folder)
    assert metrics.attention.calibrated
    assert metrics.attention.savings == pytest.approx(evidence["savings"], abs=0.02)
    by_layer = [layer.savings for layer in metrics.attention.by_layer]
    assert by_layer[0] > by_layer[1]


def test_finished_clips_are_not_rendered_again(folder: Path, tmp_path: Path) -> None:
    model, rendered = load_model(find_model(str(folder))), []

    def on_progress(_variant: object, _index: int, fraction: float) -> None:
        rendered.append(fraction)

    first = calibrate(CLIPS, Target("savings", 0.3), model, tmp_path, on_progress)
    assert any(fraction < 1 for fraction in rendered)
    rendered.clear()
    assert calibrate(CLIPS, Target("savings", 0.3), model, tmp_path, on_progress) == first
    assert all(fraction == 1 for fraction in rendered)


@pytest.mark.parametrize("target", [["--psnr", "79"], ["--savings", "0.99"]])
def test_a_target_out_of_reach_is_said_and_nothing_is_written(
    target: list[str], own_folder: Path, tmp_path: Path
) -> None:
    result = CliRunner().invoke(
        app, ["calibrate", str(own_folder), *target, *OPTIONS, "--work", str(tmp_path / "work")]
    )
    assert result.exit_code == 1
    assert "out of reach" in result.output
    assert not list(own_folder.glob("reuse_profile*"))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "Invalid JSON"),
        ('{"layer_factors": [1, -1]}', r"layer_factors\.1: Input should be greater than 0"),
        ('{"layer_factors": [1, 1, 1]}', "3 layers, this one has 2"),
    ],
)
def test_a_broken_profile_stops_the_model_from_loading(content: str, reason: str, own_folder: Path) -> None:
    (own_folder / "reuse_profile.json").write_text(content)
    with pytest.raises(ModelLoadFailed, match=reason) as caught:
        load_model(find_model(str(own_folder)))
    assert "reuse_profile.json" in str(caught.value)


@pytest.mark.parametrize("num_steps", [1, 4, 5, 12, 20, 23])
def test_the_parts_measured_are_those_the_factors_apply_to(num_steps: int) -> None:
    parts = _loop_parts(num_steps)
    assert [step for part in parts for step in part] == list(range(num_steps))
    profile = ReuseProfile(layer_factors=(1.0,), step_factors=tuple(float(part + 1) for part in range(len(parts))))
    applied = [profile.factor(0, step, num_steps) for step in range(num_steps)]
    assert applied == [number + 1 for number, part in enumerate(parts) for _ in part]


def test_wrong_arguments_are_named(own_folder: Path, tmp_path: Path) -> None:
    runner = CliRunner()
    both = runner.invoke(app, ["calibrate", str(own_folder), "--psnr", "30", "--savings", "0.5"])
    assert both.exit_code == 2
    assert "one target" in both.output
    hub = runner.invoke(app, ["calibrate", "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"])
    assert hub.exit_code == 2
    assert "download" in hub.output
    nowhere = runner.invoke(app, ["calibrate", str(own_folder), "-o", str(tmp_path / "missing" / "profile.json")])
    assert nowhere.exit_code == 2
    assert "written" in nowhere.output
    model = load_model(find_model(str(own_folder)))
    calibrate(CLIPS, Target("savings", 0.3), model, tmp_path / "work")
    with pytest.raises(InvalidRequest, match="clips: 1 clips cannot be halved"):
        calibrate(ClipSet(["x"], **SIZE), Target("savings", 0.3), model, tmp_path / "work")
    with pytest.raises(InvalidRequest, match=r"work: .* another folder"):
        calibrate(ClipSet(["x", "y"], **SIZE), Target("savings", 0.3), model, tmp_path / "work")
