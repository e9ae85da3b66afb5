"""Batches measured on a pipeline of random weights: what the record holds, not how fast it is."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from ripple_core.bench.batch import BatchReport, BatchRun, measure_batches
from ripple_core.cli import app
from ripple_core.contract.models import find_model
from ripple_core.generate import load_model


def test_every_batch_size_makes_the_same_videos(random_pipeline_folder: Path, tmp_path: Path) -> None:
    record = tmp_path / "batch.json"
    sizes = ["--size", "32x32x5", "--size", "48x32x5", "--batch-size", "1", "--batch-size", "2", "--steps", "2"]
    options = ["--model", str(random_pipeline_folder), *sizes, "--repeats", "1", "--json", str(record)]
    result = CliRunner().invoke(app, ["bench", "batch", *options])
    assert result.exit_code == 0, result.output
    report = BatchReport.model_validate_json(record.read_bytes())
    assert [(row.width, row.batch_size) for row in report.rows] == [(32, 1), (32, 2), (48, 1), (48, 2)]
    for row in report.rows:
        assert row.slowest_videos_per_second <= row.videos_per_second <= row.fastest_videos_per_second
        if row.batch_size == 1:
            assert (row.speedup, row.max_difference, row.worst_psnr_db) == (1, 0, None)
        else:
            assert row.worst_psnr_db is None or row.worst_psnr_db > 45


@pytest.mark.parametrize(
    "options", [["--batch-size", "2", "--batch-size", "3"], ["--size", "32x32"], ["--size", "axbxc"]], ids=str
)
def test_what_cannot_be_measured_is_refused(options: list[str]) -> None:
    result = CliRunner().invoke(app, ["bench", "batch", *options])
    assert result.exit_code == 2
    assert options[0] in result.output


def test_batch_sizes_that_leave_videos_out_are_refused(random_pipeline_folder: Path) -> None:
    run = BatchRun([(32, 32, 5)], [2, 3], 1, 0.5, 1)
    with pytest.raises(ValueError, match="divide"):
        measure_batches(run, load_model(find_model(str(random_pipeline_folder))))
