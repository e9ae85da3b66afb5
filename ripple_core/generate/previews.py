"""The pictures that stand for a video: a thumbnail, and a sheet of its frames."""

import math
from pathlib import Path

import numpy as np
from PIL import Image

_THUMBNAIL_PIXELS = 512
_SHEET_FRAMES = 16
_SHEET_PIXELS = 2048


def write_thumbnail(frames: np.ndarray, path: Path) -> None:
    """Write the middle frame as WebP, at most 512 pixels on its longer side.

    Args:
        frames: uint8 ``[num_frames, height, width, 3]``.
        path: an existing file is replaced.

    Raises:
        OSError: when the file cannot be written.
    """
    image = Image.fromarray(frames[len(frames) // 2])
    image.thumbnail((_THUMBNAIL_PIXELS, _THUMBNAIL_PIXELS), Image.Resampling.LANCZOS)
    image.save(path, "WEBP", quality=80)


def write_spritesheet(frames: np.ndarray, path: Path) -> None:
    """Write up to 16 frames, evenly spaced from the first to the last, as one JPEG of at most 2048 pixels' width.

    They stand in rows, in a grid of ceil(sqrt(number of frames)) columns; places left over are black.

    Args:
        frames: uint8 ``[num_frames, height, width, 3]``.
        path: an existing file is replaced.

    Raises:
        OSError: when the file cannot be written.
    """
    num_tiles = min(_SHEET_FRAMES, len(frames))
    columns = math.ceil(math.sqrt(num_tiles))
    _, height, width, _ = frames.shape
    scale = min(1.0, _SHEET_PIXELS // columns / width)
    tile_width, tile_height = int(width * scale), max(1, int(height * scale))
    sheet = Image.new("RGB", (columns * tile_width, math.ceil(num_tiles / columns) * tile_height))
    for place, index in enumerate(np.linspace(0, len(frames) - 1, num_tiles).round().astype(int)):
        tile = Image.fromarray(frames[index]).resize((tile_width, tile_height), Image.Resampling.LANCZOS)
        sheet.paste(tile, (place % columns * tile_width, place // columns * tile_height))
    sheet.save(path, "JPEG", quality=85)
