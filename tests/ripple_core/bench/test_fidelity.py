"""The fidelity bench on a small pipeline."""

from math import inf
from pathlib import Path

from PIL import Image

from ripple_core.bench.fidelity import measure_fidelity


def test_zero_is_identical_and_more_saves_more(random_pipeline_folder: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"
    (random_pipeline_folder / "timeripple.json").write_text(
        '{"defaults": {"width": 48, "height": 32, "num_frames": 9, "fps": 5, "num_inference_steps": 5}}'
    )
    rows = measure_fidelity(str(random_pipeline_folder), ["a red circle", "x"], [0.0, 0.3, 1.0], sheet)
    assert rows[0].identical
    assert rows[0].psnr_db == [inf, inf]
    assert [report.savings for report in rows[0].reports] == [0, 0]
    assert not rows[2].identical
    assert all(psnr < inf for psnr in rows[2].psnr_db)
    for low, high in zip(rows[1].reports, rows[2].reports, strict=True):
        assert low.savings < high.savings
    # 6 frames across; dense and three values of two clips down.
    assert Image.open(sheet).size == (6 * 48, 2 * 4 * 32)
