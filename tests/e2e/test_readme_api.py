"""The README's examples of the API, run as they stand against `ripple up`."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import pytest
from PIL import Image

README = (Path(__file__).parents[2] / "README.md").read_text()
API = README.partition("## API")[2].partition("## Library")[0]


def example(language: str, mark: str, up: Any) -> str:
    """The one block of a language that holds a word, turned to the running server."""
    (text,) = [block for block in re.findall(rf"```{language}\n(.*?)```", API, re.DOTALL) if mark in block]
    assert "localhost:8000" in text
    return text.replace("localhost:8000", str(up.client.base_url).removeprefix("http://").rstrip("/"))


def num_frames(path: Path) -> int:
    return int(imageio_ffmpeg.count_frames_and_secs(str(path))[0])


def test_the_curl_example(up: Any, tmp_path: Path) -> None:
    command = ["bash", "-euo", "pipefail", "-c", example("sh", "curl", up)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=300)
    assert 'data: {"status": "succeeded"' in done.stdout
    assert '"savings"' in done.stdout
    assert '"dense_flops"' in done.stdout
    assert num_frames(tmp_path / "out.mp4") == 17


def test_the_client_example(up: Any, tmp_path: Path) -> None:
    command = [sys.executable, "-c", example("python", "timeripple_client", up)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=300)
    assert "denoise 20" in done.stdout
    assert num_frames(tmp_path / "out.mp4") == 17


def test_the_openai_example(up: Any, tmp_path: Path) -> None:
    command = [sys.executable, "-c", example("python", "openai", up)]
    subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=300)
    assert num_frames(tmp_path / "video.mp4") == pytest.approx(16, abs=1)
    with Image.open(tmp_path / "frames.jpg") as sheet:
        assert sheet.format == "JPEG"
        assert sheet.width > 128
