"""The fidelity bench as a whole, on a small pipeline of random weights."""

import json
import shutil
from pathlib import Path

import imageio_ffmpeg
import pytest
from PIL import Image
from typer.testing import CliRunner

from ripple_core.bench.clip_set import ClipSet
from ripple_core.bench.fidelity import FidelityRun, measure_fidelity
from ripple_core.bench.report import FidelityReport, VariantReport
from ripple_core.bench.variants import Variant
from ripple_core.cli.main import app
from ripple_core.contract.errors import InvalidRequest
from ripple_core.contract.models import find_model
from ripple_core.generate import LoadedModel, load_model

RUN = FidelityRun(ClipSet(["a red circle", "x"]), modes=["channel"], aggressiveness=[0.0, 0.3, 1.0], baselines_at=[0.3])


@pytest.fixture(scope="module")
def folder(random_pipeline_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "random"
    shutil.copytree(random_pipeline_folder, folder)
    (folder / "timeripple.json").write_text(
        '{"defaults": {"width": 64, "height": 48, "num_frames": 9, "fps": 5, "num_inference_steps": 10}}'
    )
    return folder


@pytest.fixture(scope="module")
def model(folder: Path) -> LoadedModel:
    return load_model(find_model(str(folder)))


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bench") / "out"


@pytest.fixture(scope="module")
def report(model: LoadedModel, out: Path) -> FidelityReport:
    return measure_fidelity(RUN, model, out, vbench_folder=out / "vbench")


def variant(report: FidelityReport, label: str, aggressiveness: float | None = None) -> VariantReport:
    (found,) = [v for v in report.variants if v.label == label and v.aggressiveness == aggressiveness]
    return found


def test_zero_is_identical_and_more_saves_more(report: FidelityReport) -> None:
    zero, some, most = (variant(report, "channel", value) for value in RUN.aggressiveness)
    assert (zero.identical_clips, zero.psnr_db, zero.attention_savings) == (2, None, 0)
    assert 0 < some.attention_savings < most.attention_savings
    assert some.psnr_db is not None
    assert some.psnr_db.min <= some.psnr_db.median <= some.psnr_db.max
    # Only QK^T is reused: half of all attention, less of the whole transformer.
    assert most.score_savings == pytest.approx(2 * most.attention_savings)
    assert 0 < most.total_savings < most.attention_savings


def test_every_step_layer_and_head_is_reported(report: FidelityReport) -> None:
    most = variant(report, "channel", 1.0)
    assert most.savings_by_step is not None
    assert list(most.savings_by_step) == list(range(10))
    assert [step for step, saved in most.savings_by_step.items() if saved == 0] == [0, 1, 9]
    assert {layer: len(heads) for layer, heads in (most.savings_by_layer_and_head or {}).items()} == {0: 2, 1: 2}
    mean_of_steps = sum(most.savings_by_step.values()) / 10
    assert mean_of_steps == pytest.approx(most.attention_savings)
    assert most.attention_error is not None
    assert {layer: list(steps) for layer, steps in most.attention_error.items()} == {
        layer: list(range(2, 9)) for layer in (0, 1)
    }
    assert all(0 < error < 1 for steps in most.attention_error.values() for error in steps.values())


def test_baselines_cost_what_they_are_matched_to(report: FidelityReport) -> None:
    ours = variant(report, "channel", 0.3)
    baselines = [found for found in report.variants if found.matched_to]
    assert {found.matched_to for found in baselines} == {ours.name}
    assert [found.label for found in baselines] == [
        "keep and drop", "keep and pool", "FirstBlockCache", "TaylorSeer", "fewer steps", "fewer steps"
    ]  # fmt: skip
    for found in baselines:
        which = f"{found.matched_in}_savings"
        # Rounded in the baseline's favour: it may save less, by one cell of six or one step of ten, never more.
        assert getattr(ours, which) - 0.17 <= getattr(found, which) <= getattr(ours, which) + 1e-9
    assert len(report.verdicts) == len(baselines)
    assert all(ours.name in verdict for verdict in report.verdicts)


def test_files(report: FidelityReport, out: Path) -> None:
    assert FidelityReport.model_validate_json((out / "report.json").read_text()) == report
    for name in ("psnr_savings", "savings_by_step", "savings_by_layer_and_head", "attention_error"):
        with Image.open(out / f"{name}.png") as picture:
            assert min(picture.size) > 300
    # Five frames across; for two clips a line of text and three strips each, under a title.
    with Image.open(out / "contact-channel-1.png") as sheet:
        assert sheet.size == (5 * 64, 14 + 2 * (14 + 3 * 48))


def test_vbench_layout(report: FidelityReport, out: Path) -> None:
    folders = {path.name for path in (out / "vbench").iterdir() if path.is_dir()}
    assert {"dense", "channel-0.3", "channel-1"} <= folders
    assert len(folders) == 1 + len(report.variants)
    names = json.loads((out / "vbench" / "prompts.json").read_text())
    assert names == {"a red circle-0.mp4": "a red circle", "x-0.mp4": "x"}
    for folder in folders:
        assert {path.name for path in (out / "vbench" / folder).iterdir()} == set(names)
    assert imageio_ffmpeg.count_frames_and_secs(str(out / "vbench" / "dense" / "x-0.mp4"))[0] == 9


def test_a_second_run_renders_nothing_again(report: FidelityReport, model: LoadedModel, out: Path) -> None:
    steps = []

    def on_progress(_: Variant, __: int, fraction: float) -> None:
        steps.append(fraction)

    assert measure_fidelity(RUN, model, out, on_progress) == report
    assert set(steps) == {1.0}


def test_a_clip_cut_short_is_rendered_again(report: FidelityReport, model: LoadedModel, out: Path) -> None:
    (out / "clips" / "channel-1" / "001.json").unlink()
    again = measure_fidelity(RUN, model, out)
    ours, before = variant(again, "channel", 1.0), variant(report, "channel", 1.0)
    assert ours.psnr_db == before.psnr_db
    assert ours.savings_by_step == before.savings_by_step


def test_a_folder_of_another_run_is_refused(report: FidelityReport, model: LoadedModel, out: Path) -> None:
    assert report
    with pytest.raises(InvalidRequest, match="name another folder"):
        measure_fidelity(FidelityRun(ClipSet(["another"])), model, out)


def test_mode_dense_is_identical_at_any_value(model: LoadedModel, tmp_path: Path) -> None:
    run = FidelityRun(ClipSet(["x"], num_inference_steps=3), ["dense"], [0.5, 1.0], baselines_at=[])
    report = measure_fidelity(run, model, tmp_path)
    assert [(found.name, found.identical_clips) for found in report.variants] == [("dense 0.5", 1), ("dense 1", 1)]
    assert not (tmp_path / "savings_by_step.png").exists()


def test_seeds_per_prompt_number_the_clips(model: LoadedModel) -> None:
    clips = ClipSet(["a", "b"], seeds_per_prompt=2, first_seed=7, num_inference_steps=3)
    requests = clips.requests(model)
    assert [(request.prompt, request.seed) for request in requests] == [("a", 7), ("a", 8), ("b", 9), ("b", 10)]
    assert requests[0].num_inference_steps == 3


def test_the_command(folder: Path, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a red circle\n\n  \n")
    options = ["--model", str(folder), "--prompts", str(prompts), "--steps", "4", "-a", "1", "--no-baselines"]
    done = CliRunner().invoke(app, ["bench", "fidelity", *options, "--json", str(tmp_path / "report.json")])
    assert done.exit_code == 0, done.output
    assert "ripple 1" in done.output
    # Nothing is cut short on a terminal of 80 columns.
    assert "…" not in done.output
    report = FidelityReport.model_validate_json((tmp_path / "report.json").read_text())
    assert [(clip.prompt, clip.num_inference_steps) for clip in report.dense] == [("a red circle", 4)]
    assert [found.name for found in report.variants] == ["ripple 1"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--mode", "magic"], "known are"),
        (["-a", "2"], "less than or equal to 1"),
        (["--prompts", "/nowhere"], "does not exist"),
        (["-a", "0.2", "--baselines-at", "0.3"], "0.3 is not among the values measured; name one of 0.2"),
        (["--width", "50"], "nearest: 48 or 64"),
    ],
)
def test_wrong_options_are_named(folder: Path, options: list[str], message: str) -> None:
    done = CliRunner().invoke(app, ["bench", "fidelity", "--model", str(folder), *options])
    assert done.exit_code == 2
    assert message in " ".join(done.output.replace("│", " ").split())
