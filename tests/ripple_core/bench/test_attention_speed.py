"""The attention bench on small sizes: what it says about itself, not how fast anything is."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from ripple_core.attention import LatentGrid
from ripple_core.bench.attention_inputs import grid_of, make_inputs
from ripple_core.bench.attention_speed import SpeedReport, SpeedRun, measure_speed
from ripple_core.cli import app
from ripple_core.contract.errors import InvalidRequest


@pytest.mark.parametrize("source", ["builtin", "synthetic"])
def test_inputs_have_neighbours_that_differ_less_than_strangers(source: str) -> None:
    inputs = make_inputs(source, 8192, heads=1, head_dim=128)  # type: ignore[arg-type]
    assert inputs.grid == LatentGrid(8, 32, 32)
    for tensor in (inputs.query, inputs.key, inputs.value):
        assert tensor.shape == (1, 8192, 1, 128)
        field = tensor.reshape(8, 32, 32, -1)
        to_stranger = (field - field.roll((3, 11, 11), (0, 1, 2))).std()
        to_neighbour = [float(field.diff(dim=axis).std() / to_stranger) for axis in range(3)]
        assert max(to_neighbour) < 0.99


@pytest.mark.parametrize("tokens", [0, 1000])
def test_tokens_that_make_no_grid_are_refused(tokens: int) -> None:
    with pytest.raises(InvalidRequest, match="multiple of 1024"):
        grid_of(tokens)


def test_a_row_says_what_ran() -> None:
    run = SpeedRun([1024], 2, [64], [0.5], ["synthetic"], repeats=1)
    rows = []
    report = measure_speed(run, on_row=rows.append)
    assert report.rows == rows
    (row,) = rows
    assert (row.tokens, row.heads, row.head_dim, row.mode, row.source) == (1024, 2, 64, "ripple", "synthetic")
    assert 0.5 <= row.savings < 0.6
    assert 0 < row.relative_error < row.budget
    assert row.ratio == row.dense_ms / row.ours_ms
    assert row.dense_peak_bytes
    assert row.ours_peak_bytes
    # Query, key and value have to be there at least.
    assert min(row.dense_peak_bytes, row.ours_peak_bytes) >= 3 * 1024 * 2 * 64 * 4


def test_the_command_writes_report_and_plot(tmp_path: Path) -> None:
    json, plot = tmp_path / "speed.json", tmp_path / "speed.png"
    arguments = ["--tokens", "1024", "--heads", "1", "--head-dim", "64", "--savings", "0.5", "--repeats", "1"]
    result = CliRunner().invoke(
        app, ["bench", "attention", *arguments, "--no-memory", "--json", str(json), "--plot", str(plot)]
    )
    assert result.exit_code == 0, result.output
    report = SpeedReport.model_validate_json(json.read_text(encoding="utf-8"))
    assert [row.source for row in report.rows] == ["builtin", "synthetic"]
    assert report.threads == torch.get_num_threads()
    assert Image.open(plot).width > 400


def test_a_size_that_cannot_be_made_is_one_line() -> None:
    result = CliRunner().invoke(app, ["bench", "attention", "--tokens", "1000"])
    assert result.exit_code == 2
    assert "multiple of 1024" in result.output
    assert "Traceback" not in result.output
