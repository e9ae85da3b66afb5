"""The GPU benches on tiny sizes, where there is no GPU under Triton's interpreter: what they record, not how fast."""

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from ripple_core.attention import LatentGrid
from ripple_core.attention.kernels import config
from ripple_core.attention.kernels.config import KernelConfig, kernel_config
from ripple_core.bench import gpu_attention, gpu_step, search
from ripple_core.bench.gpu_attention import GpuAttentionRun, WrongOutput, measure_gpu_attention
from ripple_core.bench.gpu_step import StepModel, StepRun, measure_steps
from ripple_core.bench.tune import TuneRun, tune, write_table
from ripple_core.bench.video_sizes import VIDEO_SIZES, VideoSize
from ripple_core.cli import app
from ripple_core.cli.bench_gpu import print_attention_row, print_step_row

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SIZES = {"small": VideoSize(LatentGrid(6, 8, 16), heads=1, head_dim=16, text=(0, 3))}
# Tuning runs every candidate and looks for a budget.
SMALLEST = {"smallest": VideoSize(LatentGrid(4, 8, 16), heads=1, head_dim=16, text=(0, 3))}
needs_no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a GPU")


def test_sizes_are_those_of_the_models() -> None:
    tokens = {name: size.tokens for name, size in VIDEO_SIZES.items()}
    assert tokens == {
        "cogvideox-5b": 17_776,
        "wan-1.3b-480p": 32_760,
        "wan-14b-720p": 75_600,
        "hunyuan-720p": 119_056,
        "128k": 131_072,
    }


def test_attention_rows_say_what_ran_and_against_what(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(search, "_BUDGETS_TRIED", 3)
    rows = []
    report = measure_gpu_attention(GpuAttentionRun(SIZES, [0.5], repeats=1), DEVICE, rows.append)
    assert report.rows == rows
    assert report.machine.triton_version
    smooth, noise = rows
    assert (smooth.tokens, smooth.heads, smooth.head_dim, smooth.dtype) == (771, 1, 16, "bfloat16")
    assert smooth.savings >= 0.5
    assert 0 < smooth.relative_error < smooth.budget
    # The bench's own deciding is a part of the call.
    assert 0 < smooth.deciding.median < smooth.ours.median
    assert smooth.fastest_dense in smooth.dense
    assert smooth.speed_up == smooth.dense[smooth.fastest_dense].median / smooth.ours.median
    # What deciding took is counted, and nothing was saved.
    assert -0.2 < noise.savings < 0
    assert noise.relative_error < 0.01
    print_attention_row(smooth)
    assert f"{smooth.fastest_dense}* " in capsys.readouterr().out


def test_nothing_is_timed_when_the_kernels_are_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    original = gpu_attention.triton_ripple_attention

    def wrong(*args: object, **kwargs: object) -> object:
        out, executed = original(*args, **kwargs)  # type: ignore[arg-type]
        return out * 1.01, executed

    monkeypatch.setattr(gpu_attention, "triton_ripple_attention", wrong)
    with pytest.raises(WrongOutput, match="nothing was timed"):
        measure_gpu_attention(GpuAttentionRun(SIZES), DEVICE)


def test_a_step_counts_its_attention_and_projects_a_video(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = {"num_attention_heads": 2, "attention_head_dim": 16, "ffn_dim": 32, "text_dim": 16, "freq_dim": 16}
    monkeypatch.setitem(gpu_step.STEP_MODELS, "tiny", StepModel(blocks=3, built=1, config=tiny))
    monkeypatch.setitem(gpu_step.STEP_SIZES, "tiny", (21, 128, 192))
    report = measure_steps(StepRun(["tiny"], ["tiny"], [0.5], repeats=1, dtype=torch.float32), DEVICE)
    (row,) = report.rows
    assert row.tokens == 6 * 8 * 12
    assert row.savings >= 0.5
    assert (row.blocks, row.built, row.video_steps) == (3, 1, 50)
    # 5 % of 50 steps stay dense, rounded up.
    steps = (3 * row.dense.median + 47 * row.ours.median) / row.dense.median
    assert row.video_speed_up == pytest.approx(50 / steps)
    print_step_row(row)
    assert "1 of 3 blocks" in capsys.readouterr().out


def test_tuning_fills_the_table_that_calls_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "_BUDGETS_TRIED", 2)
    candidates = [KernelConfig(query_tokens=32), KernelConfig(keys_at_once=128)]
    heard = []
    run = TuneRun(SMALLEST, savings=0.3, repeats=1, candidates=candidates)
    entries = list(tune(run, DEVICE, lambda *row: heard.append(row)))
    assert [row[1] for row in heard] == candidates
    table = tmp_path / "tuned.json"
    other = entries[0] | {"device": "NVIDIA H100", "tokens": 75_600, "config": vars(KernelConfig(num_stages=4))}
    for added in (entries, [other], entries):
        write_table(table, added)
    assert len(json.loads(table.read_text(encoding="utf-8"))) == 2

    monkeypatch.setattr(config, "TABLE", table)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA H100")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    h100 = torch.device("cuda")
    assert kernel_config(h100, 16, 100_000) == KernelConfig(num_stages=4)
    assert kernel_config(h100, 128, 75_600) == KernelConfig()
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 6))
    assert kernel_config(h100, 128, 75_600).num_warps == 4


@needs_no_gpu
@pytest.mark.parametrize("command", ["step", "tune", "attention"])
def test_commands_without_a_gpu_say_so_in_one_line(command: str) -> None:
    result = CliRunner().invoke(app, ["bench", command, "--device", "cuda"])
    assert result.exit_code == 2
    assert "needs a CUDA device" in " ".join(result.output.split())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["attention", "--device", "cuda", "--tokens", "1024"], "choose with --size"),
        (["attention", "--size", "wan-14b-720p"], "need --device cuda"),
        (["attention", "--device", "cuda", "--size", "nothing"], "known are cogvideox-5b"),
        (["step", "--model", "nothing"], "known are wan-1.3b, wan-14b"),
    ],
)
def test_wrong_options_name_the_right_ones(arguments: list[str], words: str) -> None:
    result = CliRunner().invoke(app, ["bench", *arguments])
    assert result.exit_code == 2
    assert words in " ".join(result.output.replace("│", " ").split())
