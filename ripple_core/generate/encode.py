"""Frames to a video file: with the ffmpeg that imageio-ffmpeg brings along, or as a ZIP of PNGs."""

import io
import logging
import subprocess
import zipfile
from pathlib import Path

import imageio_ffmpeg
import numpy as np
from PIL import Image

from ripple_core.contract.request import OutputSettings

logger = logging.getLogger(__name__)

# Visually lossless for rendered video, and VP9's usual quality.
_MP4_CRF, _WEBM_CRF = 16, 30
# Players show a GIF's frames of less than two hundredths of a second for ten.
_MAX_GIF_FPS = 50


def write_video(frames: np.ndarray, path: Path, fps: int, output: OutputSettings) -> None:
    """Write one file; the same frames give the same bytes.

    Args:
        frames: uint8 ``[num_frames, height, width, 3]``, even height and width.
        path: an existing file is replaced.
        fps: frames per second. A GIF of more than 50 leaves frames out, and plays as fast.
        output: H.264 and VP9 are in 4:2:0, which plays everywhere; an MP4's index comes first, so that it plays while
            it loads; a GIF loops for ever; a ZIP holds `frame_00000.png` and so on.

    Raises:
        OSError: when the file cannot be written, a full disk included.
    """
    if output.format == "zip":
        _write_pngs(frames, path)
    elif output.format == "gif":
        # A palette of the clip's own colours; the frames are decoded once and go both ways.
        palette = f"fps={min(fps, _MAX_GIF_FPS)},split[a][b];[a]palettegen[p];[b][p]paletteuse"
        _run_ffmpeg(frames, path, fps, ["-vf", palette, "-loop", "0"])
    elif output.format == "webm":
        crf = _WEBM_CRF if output.crf is None else output.crf
        # libvpx takes a rate factor alone only at a bit rate of 0; speed 4 of 8 costs little quality.
        rate = ["-crf", str(crf), "-b:v", "0", "-deadline", "good", "-cpu-used", "4", "-row-mt", "1"]
        _run_ffmpeg(frames, path, fps, ["-c:v", "libvpx-vp9", "-pix_fmt", "yuv420p", *rate])
    else:
        crf = _MP4_CRF if output.crf is None else output.crf
        rate = ["-crf", str(crf), "-movflags", "+faststart"]
        _run_ffmpeg(frames, path, fps, ["-c:v", "libx264", "-pix_fmt", "yuv420p", *rate])


def _run_ffmpeg(frames: np.ndarray, path: Path, fps: int, options: list[str]) -> None:
    _, height, width, _ = frames.shape
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(fps), "-i", "-"]
    # Without bitexact, every WebM carries a random number.
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-v", "error", *source, *options, "-fflags", "+bitexact"]
    done = subprocess.run(
        [*command, str(path.absolute())],
        input=np.ascontiguousarray(frames).reshape(-1).data,
        stderr=subprocess.PIPE,
        check=False,
        # Ctrl-C reaches a whole process group, and ends ffmpeg in the middle of a file.
        start_new_session=True,
    )
    if done.returncode != 0:
        problem = done.stderr.decode(errors="replace")
        logger.info("ffmpeg ended with exit code %d: %s", done.returncode, problem)
        # The first line ends in the reason, after the names of ffmpeg's parts.
        reason = problem.partition("\n")[0].rpartition(": ")[2] or f"exit code {done.returncode}"
        raise OSError(f"ffmpeg could not write {path.name}: {reason}")


def _write_pngs(frames: np.ndarray, path: Path) -> None:
    # Stored: a PNG is compressed already.
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for index, frame in enumerate(frames):
            png = io.BytesIO()
            Image.fromarray(frame).save(png, "PNG")
            # By its name alone it would get the present time.
            archive.writestr(zipfile.ZipInfo(f"frame_{index:05}.png"), png.getvalue())
