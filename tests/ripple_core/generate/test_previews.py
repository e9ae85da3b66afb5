"""Thumbnail and sprite sheet."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ripple_core.generate.previews import write_spritesheet, write_thumbnail


def grey_frames(num_frames: int, height: int = 16, width: int = 32) -> np.ndarray:
    """Each frame as bright as its index says."""
    levels = np.arange(num_frames, dtype=np.uint8)[:, None, None, None] * 3
    return np.broadcast_to(levels, (num_frames, height, width, 3))


@pytest.mark.parametrize(
    ("size", "shown"),
    [((48, 32), (48, 32)), ((832, 480), (512, 295)), ((480, 832), (295, 512)), ((512, 16), (512, 16))],
)
def test_a_thumbnail_keeps_the_shape_within_512_pixels(
    tmp_path: Path, size: tuple[int, int], shown: tuple[int, int]
) -> None:
    width, height = size
    write_thumbnail(grey_frames(3, height, width), tmp_path / "x.webp")
    with Image.open(tmp_path / "x.webp") as image:
        assert (image.format, image.size) == ("WEBP", shown)


@pytest.mark.parametrize(("num_frames", "middle"), [(1, 0), (2, 1), (17, 8)])
def test_a_thumbnail_is_the_middle_frame(tmp_path: Path, num_frames: int, middle: int) -> None:
    write_thumbnail(grey_frames(num_frames), tmp_path / "x.webp")
    with Image.open(tmp_path / "x.webp") as image:
        assert np.asarray(image).mean() == pytest.approx(3 * middle, abs=1.5)


@given(num_frames=st.integers(1, 81))
@settings(max_examples=20, deadline=None)
def test_a_sheet_goes_evenly_from_first_to_last(num_frames: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("sheet") / "x.jpg"
    write_spritesheet(grey_frames(num_frames), path)
    num_tiles = min(num_frames, 16)
    columns = math.ceil(math.sqrt(num_tiles))
    rows = math.ceil(num_tiles / columns)
    with Image.open(path) as image:
        assert (image.format, image.size) == ("JPEG", (columns * 32, rows * 16))
        tiles = np.asarray(image.convert("L"), float).reshape(rows, 16, columns, 32).mean((1, 3)).reshape(-1)
    indices = (tiles[:num_tiles] / 3).round().astype(int)
    assert indices[0] == 0
    assert indices[-1] == num_frames - 1
    steps = np.diff(indices)
    assert num_tiles == 1 or steps.max() - steps.min() <= 1
    assert np.all(tiles[num_tiles:] < 1)


@pytest.mark.parametrize("size", [(1280, 720), (720, 1280), (832, 480)])
def test_a_sheet_is_at_most_2048_pixels_wide(tmp_path: Path, size: tuple[int, int]) -> None:
    width, height = size
    write_spritesheet(grey_frames(17, height, width), tmp_path / "x.jpg")
    with Image.open(tmp_path / "x.jpg") as image:
        assert image.width == 2048
        assert image.height / image.width == pytest.approx(height / width, rel=0.01)


@pytest.mark.parametrize(("write", "name"), [(write_thumbnail, "x.webp"), (write_spritesheet, "x.jpg")])
def test_a_full_disk_is_an_error(tmp_path: Path, write: object, name: str) -> None:
    assert callable(write)
    (tmp_path / name).symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left on device"):
        write(grey_frames(4), tmp_path / name)
