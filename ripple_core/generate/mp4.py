"""Frames to MP4 with the ffmpeg that imageio-ffmpeg brings along."""

from pathlib import Path

import imageio_ffmpeg
import numpy as np

# Visually lossless for rendered video; H.264 in 4:2:0 plays everywhere.
_CONSTANT_RATE_FACTOR = 16


def write_mp4(frames: np.ndarray, path: Path, fps: int) -> None:
    """Write an H.264 MP4 whose index comes first, so that it plays while it loads.

    Args:
        frames: uint8 ``[num_frames, height, width, 3]``, even height and width.
        path: ends in .mp4; an existing file is replaced.
        fps: frames per second.

    Raises:
        OSError: when ffmpeg fails, a full disk included.
    """
    _, height, width, _ = frames.shape
    writer = imageio_ffmpeg.write_frames(
        str(path),
        (width, height),
        fps=fps,
        codec="libx264",
        pix_fmt_in="rgb24",
        pix_fmt_out="yuv420p",
        quality=None,
        macro_block_size=2,
        ffmpeg_log_level="error",
        output_params=["-crf", str(_CONSTANT_RATE_FACTOR), "-movflags", "+faststart"],
    )
    writer.send(None)
    try:
        for frame in frames:
            writer.send(np.ascontiguousarray(frame))
    finally:
        writer.close()
    if not path.is_file() or path.stat().st_size == 0:
        raise OSError(f"ffmpeg wrote no video to {path}; is the disk full?")
