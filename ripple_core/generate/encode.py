"""Frames to a video file: with the ffmpeg that imageio-ffmpeg brings along, or as a ZIP of PNGs."""

import errno
import io
import logging
import os
import signal
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import imageio_ffmpeg
import numpy as np
from PIL import Image

from ripple_core.contract.errors import OutOfMemory, StorageFull
from ripple_core.contract.request import OutputSettings

logger = logging.getLogger(__name__)

# Visually lossless for rendered video, and VP9's usual quality.
_MP4_CRF, _WEBM_CRF = 16, 30
_POLL_SECONDS = 0.1
# Players show a GIF's frames of less than two hundredths of a second for ten.
_MAX_GIF_FPS = 50


def write_video(
    frames: np.ndarray,
    path: Path,
    fps: int,
    output: OutputSettings = OutputSettings(),
    meanwhile: Callable[[], None] = lambda: None,
) -> None:
    """Write one file; the same frames give the same bytes.

    Args:
        frames: uint8 ``[num_frames, height, width, 3]``, even height and width.
        path: an existing file is replaced.
        fps: frames per second. A GIF of more than 50 leaves frames out, and plays as fast.
        output: H.264 and VP9 are in 4:2:0, which plays everywhere; an MP4's index comes first, so that it plays while
            it loads; a GIF loops for ever; a ZIP holds `frame_00000.png` and so on.
        meanwhile: called several times a second; what it raises ends the writing, in the middle of the file.

    Raises:
        StorageFull: when there is no room for it.
        OutOfMemory: when the encoder gets no memory.
        OSError: when the file cannot be written.
    """
    if output.format == "zip":
        _write_pngs(frames, path, meanwhile)
    elif output.format == "gif":
        # A palette of the clip's own colours; the frames are decoded once and go both ways.
        palette = f"fps={min(fps, _MAX_GIF_FPS)},split[a][b];[a]palettegen[p];[b][p]paletteuse"
        _run_ffmpeg(frames, path, fps, ["-vf", palette, "-loop", "0"], meanwhile)
    elif output.format == "webm":
        crf = _WEBM_CRF if output.crf is None else output.crf
        # libvpx takes a rate factor alone only at a bit rate of 0; speed 4 of 8 costs little quality.
        rate = ["-crf", str(crf), "-b:v", "0", "-deadline", "good", "-cpu-used", "4", "-row-mt", "1"]
        _run_ffmpeg(frames, path, fps, ["-c:v", "libvpx-vp9", "-pix_fmt", "yuv420p", *rate], meanwhile)
    else:
        crf = _MP4_CRF if output.crf is None else output.crf
        rate = ["-crf", str(crf), "-movflags", "+faststart"]
        _run_ffmpeg(frames, path, fps, ["-c:v", "libx264", "-pix_fmt", "yuv420p", *rate], meanwhile)


def _run_ffmpeg(frames: np.ndarray, path: Path, fps: int, options: list[str], meanwhile: Callable[[], None]) -> None:
    _, height, width, _ = frames.shape
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(fps), "-i", "-"]
    # Without bitexact, every WebM carries a random number.
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-v", "error", *source, *options, "-fflags", "+bitexact"]
    with subprocess.Popen(
        [*command, str(path.absolute())],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # Ctrl-C reaches a whole process group, and ends ffmpeg in the middle of a file.
        start_new_session=True,
    ) as process:
        problem = _feed(process, np.ascontiguousarray(frames).reshape(-1).data, meanwhile)
    if process.returncode != 0:
        _raise_for(process.returncode, problem, path)


def _feed(process: subprocess.Popen[Any], pixels: memoryview, meanwhile: Callable[[], None]) -> str:
    """What ffmpeg says until it ends."""
    # A thread, because Popen.communicate forgets its input where a timeout interrupts it.
    with ThreadPoolExecutor(max_workers=1) as pool:
        said = pool.submit(process.communicate, pixels)
        try:
            while not wait([said], timeout=_POLL_SECONDS).done:
                meanwhile()
        except BaseException:
            process.kill()
            raise
        return said.result()[1].decode(errors="replace")


def _raise_for(exit_code: int, problem: str, path: Path) -> NoReturn:
    logger.info("ffmpeg ended with exit code %d: %s", exit_code, problem)
    for number in StorageFull.errnos:
        if os.strerror(number) in problem:
            raise StorageFull(os.strerror(number))
    # Nothing else kills it so.
    if os.strerror(errno.ENOMEM) in problem or exit_code == -signal.SIGKILL:
        raise OutOfMemory("The encoder ran out of memory; ask for a smaller size or fewer frames.")
    # The first line ends in the reason, after the names of ffmpeg's parts.
    reason = problem.partition("\n")[0].rpartition(": ")[2] or f"exit code {exit_code}"
    raise OSError(f"ffmpeg could not write {path.name}: {reason}")


def _write_pngs(frames: np.ndarray, path: Path, meanwhile: Callable[[], None]) -> None:
    # Stored: a PNG is compressed already.
    with storage_full_named(), zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for index, frame in enumerate(frames):
            meanwhile()
            png = io.BytesIO()
            Image.fromarray(frame).save(png, "PNG")
            # By its name alone it would get the present time.
            archive.writestr(zipfile.ZipInfo(f"frame_{index:05}.png"), png.getvalue())


@contextmanager
def storage_full_named() -> Iterator[None]:
    """Turn the system's error for a full disk, or a used-up quota, into StorageFull."""
    try:
        yield
    except OSError as error:
        if error.errno not in StorageFull.errnos:
            raise
        raise StorageFull(os.strerror(error.errno)) from error
