"""The pictures that stand for a video: a thumbnail, and a sheet of its frames."""

import io
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from ripple_core.generate.encode import storage_full_named

_THUMBNAIL_PIXELS = 512
_SHEET_FRAMES = 16
_SHEET_PIXELS = 2048


def write_thumbnail(frames: np.ndarray, path: Path) -> None:
    """Write the middle frame as WebP, at most 512 pixels on its longer side.

    Args:
        frames: uint8 ``[num_frames, height, width, 3]``.
        path: an existing file is replaced.

    Raises:
        StorageFull: when there is no room for it.
        OSError: when the file cannot be written.
    """
    image = Image.fromarray(frames[len(frames) // 2])
    image.thumbnail((_THUMBNAIL_PIXELS, _THUMBNAIL_PIXELS), Image.Resampling.LANCZOS)
    _write(image, path, "WEBP", quality=80)


def write_spritesheet(frames: np.ndarray, path: Path, meanwhile: Callable[[], None] = lambda: None) -> None:
    """Write up to 16 frames, evenly spaced from the first to the last, as one JPEG of at most 2048 pixels' width.

    They stand in rows, in a grid of ceil(sqrt(number of frames)) columns; places left over are black.

    Args:
        frames: uint8 ``[num_frames, height, width, 3]``.
        path: an existing file is replaced.
        meanwhile: called before each frame; what it raises ends the writing.

    Raises:
        StorageFull: when there is no room for it.
        OSError: when the file cannot be written.
    """
    num_tiles = min(_SHEET_FRAMES, len(frames))
    columns = math.ceil(math.sqrt(num_tiles))
    _, height, width, _ = frames.shape
    scale = min(1.0, _SHEET_PIXELS // columns / width)
    tile_width, tile_height = int(width * scale), max(1, int(height * scale))
    sheet = Image.new("RGB", (columns * tile_width, math.ceil(num_tiles / columns) * tile_height))
    for place, index in enumerate(np.linspace(0, len(frames) - 1, num_tiles).round().astype(int)):
        meanwhile()
        tile = Image.fromarray(frames[index]).resize((tile_width, tile_height), Image.Resampling.LANCZOS)
        sheet.paste(tile, (place % columns * tile_width, place // columns * tile_height))
    _write(sheet, path, "JPEG", quality=85)


def _write(image: Image.Image, path: Path, kind: str, quality: int) -> None:
    # By way of memory: errors of the disk reach us with their numbers.
    content = io.BytesIO()
    image.save(content, kind, quality=quality)
    with storage_full_named():
        path.write_bytes(content.getbuffer())
