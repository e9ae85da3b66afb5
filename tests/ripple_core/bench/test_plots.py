"""The contact sheet of a fidelity run."""

from pathlib import Path

import numpy as np
from PIL import Image

from ripple_core.bench.plots import write_contact_sheet
from ripple_core.bench.render import Clip, ClipRecord


def clips(brightness: int) -> list[Clip]:
    frames = np.full((6, 33, 700, 3), brightness, np.uint8)
    return [Clip(frames, ClipRecord.model_construct(prompt=f"prompt {index}")) for index in range(5)]


def test_many_large_clips_are_reduced_and_stand_in_two_columns(tmp_path: Path) -> None:
    """Five frames of 700 pixels, a third of the size; the difference is four times as bright; the sixth place black."""
    write_contact_sheet(tmp_path / "sheet.png", clips(100), clips(110), "channel 1")
    with Image.open(tmp_path / "sheet.png") as image:
        sheet = np.asarray(image)
    width, strip, label = 5 * 700 // 3 + 1, 11, 14
    assert sheet.shape == (label + 3 * (label + 3 * strip), 2 * width, 3)
    first = sheet[2 * label : 2 * label + 3 * strip]
    assert [int(first[y, x, 0]) for y in (5, 16, 27) for x in (5, width + 5)] == [100, 100, 110, 110, 40, 40]
    assert sheet[-3 * strip :, width:].max() == 0
