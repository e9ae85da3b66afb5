"""The files that frames become."""

import io
import re
import subprocess
import zipfile
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import psutil
import pytest
from PIL import Image, ImageSequence

from ripple_core.contract.errors import GenerationCancelled, StorageFull
from ripple_core.contract.request import OutputSettings, VideoFormat
from ripple_core.generate import write_video

NOISE = np.random.default_rng(0).integers(0, 255, (10, 32, 48, 3), dtype=np.uint8)
MP4, WEBM, GIF, ZIP = (OutputSettings(format=name) for name in ("mp4", "webm", "gif", "zip"))
EVERY = [MP4, WEBM, GIF, ZIP]


def moving_bar() -> np.ndarray:
    """A red bar on grey that moves right, so that every frame and every colour tells."""
    frames = np.full((10, 32, 48, 3), 90, np.uint8)
    for index, frame in enumerate(frames):
        frame[:, 4 * index : 4 * index + 8] = (200, 40, 40)
    return frames


def probe(path: Path) -> str:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False).stderr


def read(path: Path) -> np.ndarray:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            return np.stack([np.asarray(Image.open(io.BytesIO(archive.read(name)))) for name in archive.namelist()])
    if path.suffix == ".gif":
        with Image.open(path) as gif:
            return np.stack([np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(gif)])
    reader = imageio_ffmpeg.read_frames(str(path))
    width, height = next(reader)["size"]
    return np.stack([np.frombuffer(frame, np.uint8).reshape(height, width, 3) for frame in reader])


def video(folder: Path, output: OutputSettings, frames: np.ndarray = NOISE, fps: int = 7) -> Path:
    path = folder / f"video.{output.format}"
    write_video(frames, path, fps, output)
    return path


def test_an_mp4_plays_everywhere_and_while_it_loads(tmp_path: Path) -> None:
    path = video(tmp_path, MP4)
    assert re.search(r"Video: h264.*yuv420p.*48x32.*7 fps", probe(path))
    content = path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")
    assert imageio_ffmpeg.count_frames_and_secs(str(path)) == (10, pytest.approx(10 / 7, abs=0.01))


def test_a_webm_is_vp9(tmp_path: Path) -> None:
    path = video(tmp_path, WEBM)
    assert re.search(r"Video: vp9.*yuv420p.*48x32.*7 fps", probe(path))
    assert imageio_ffmpeg.count_frames_and_secs(str(path)) == (10, pytest.approx(10 / 7, abs=0.01))


@pytest.mark.parametrize(("fps", "num_frames"), [(7, 10), (16, 10), (100, 5)])
def test_a_gif_loops_for_ever_at_the_right_speed(tmp_path: Path, fps: int, num_frames: int) -> None:
    with Image.open(video(tmp_path, GIF, moving_bar(), fps)) as gif:
        assert (gif.info["loop"], gif.size) == (0, (48, 32))
        milliseconds = [frame.info["duration"] for frame in ImageSequence.Iterator(gif)]
    assert len(milliseconds) == num_frames
    # Less than two hundredths of a second is not shown as such.
    assert min(milliseconds) >= 20
    assert sum(milliseconds) == pytest.approx(1000 * 10 / fps, abs=10)


def test_a_zip_holds_a_stored_png_for_each_frame(tmp_path: Path) -> None:
    path = video(tmp_path, ZIP)
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == [f"frame_{index:05}.png" for index in range(10)]
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}
        assert Image.open(io.BytesIO(archive.read("frame_00000.png"))).format == "PNG"
    assert np.array_equal(read(path), NOISE)


@pytest.mark.parametrize("output", EVERY, ids=lambda output: output.format)
def test_pixels_survive_in_order(tmp_path: Path, output: OutputSettings) -> None:
    frames = moving_bar()
    seen = read(video(tmp_path, output, frames)).astype(int)
    assert seen.shape == frames.shape
    assert np.abs(seen - frames).mean() < 6


@pytest.mark.parametrize("output", EVERY, ids=lambda output: output.format)
def test_the_same_frames_give_the_same_bytes(tmp_path: Path, output: OutputSettings) -> None:
    assert video(tmp_path, output).read_bytes() == video(tmp_path, output).read_bytes()


@pytest.mark.parametrize("output", EVERY, ids=lambda output: output.format)
def test_one_frame_is_a_video(tmp_path: Path, output: OutputSettings) -> None:
    assert read(video(tmp_path, output, NOISE[:1])).shape == (1, 32, 48, 3)


@pytest.mark.parametrize("name", ["mp4", "webm"])
def test_a_higher_crf_gives_a_smaller_file(tmp_path: Path, name: VideoFormat) -> None:
    sizes = [video(tmp_path, OutputSettings(format=name, crf=crf)).stat().st_size for crf in (0, 20, None, 51)]
    default = sizes.pop(2)
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < default < sizes[0]


@pytest.mark.parametrize("output", EVERY, ids=lambda output: output.format)
def test_a_full_disk_is_an_error_that_says_so(tmp_path: Path, output: OutputSettings) -> None:
    (tmp_path / f"video.{output.format}").symlink_to("/dev/full")
    with pytest.raises(StorageFull, match="No space left on device"):
        video(tmp_path, output)


@pytest.mark.parametrize("output", EVERY, ids=lambda output: output.format)
def test_a_folder_that_is_missing_is_an_error_that_says_so(tmp_path: Path, output: OutputSettings) -> None:
    with pytest.raises(OSError, match="No such file or directory"):
        video(tmp_path / "absent", output)


@pytest.mark.parametrize("output", EVERY, ids=lambda output: output.format)
def test_a_stop_ends_the_encoder_at_once(tmp_path: Path, output: OutputSettings) -> None:
    """Long before the file is done; no process of ours stays."""
    large = np.random.default_rng(0).integers(0, 255, (60, 720, 1280, 3), dtype=np.uint8)
    asked: list[int] = []

    def stop() -> None:
        asked.append(len(asked))
        if len(asked) == 2:
            raise GenerationCancelled("stop")

    # Other tests' servers may be among them.
    before = psutil.Process().children()
    with pytest.raises(GenerationCancelled):
        write_video(large, tmp_path / f"video.{output.format}", 7, output, meanwhile=stop)
    assert len(asked) == 2
    assert set(psutil.Process().children()) <= set(before)


@pytest.mark.parametrize("output", EVERY, ids=lambda output: output.format)
def test_the_stop_is_asked_about_while_the_bytes_stay_the_same(tmp_path: Path, output: OutputSettings) -> None:
    frames = np.tile(NOISE, (6, 6, 6, 1))
    asked: list[None] = []
    plain = video(tmp_path, output, frames).read_bytes()
    path = tmp_path / f"again.{output.format}"
    write_video(frames, path, 7, output, meanwhile=lambda: asked.append(None))
    assert asked
    assert path.read_bytes() == plain
