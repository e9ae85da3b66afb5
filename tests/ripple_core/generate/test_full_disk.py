"""A disk that fills up while a video's files are written: a real one, of a few kilobytes."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ripple_core.contract.errors import GenerationCancelled, StorageFull
from ripple_core.contract.videos import SPRITESHEET, THUMBNAIL
from ripple_core.generate import LoadedModel, generate_video

QUICK = {"num_inference_steps": 1, "guidance_scale": 1.0}


@pytest.fixture(params=[4, 8, 16], ids=lambda kilobytes: f"{kilobytes}kB")
def small_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A file system in memory; the thumbnail, the sheet or the video itself is the one too many."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("only root of a Linux system may mount a small file system")
    options = ["-t", "tmpfs", "-o", f"size={request.param}k", "tmpfs", tmp_path]
    mounted = subprocess.run(["mount", *options], capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"no file system may be mounted here: {mounted.stderr}")
    yield tmp_path
    subprocess.run(["umount", tmp_path], check=True)


@pytest.mark.parametrize("name", ["mp4", "webm", "gif", "zip"])
def test_a_full_disk_is_named_and_left_without_parts(model: LoadedModel, ask: Any, small_disk: Path, name: str) -> None:
    asked = ask(model.spec, **QUICK, width=128, height=128, output={"format": name})
    with pytest.raises(StorageFull, match="There is no room left for the video"):
        generate_video(model, asked, small_disk)
    assert list(small_disk.iterdir()) == []


@pytest.mark.parametrize("name", [THUMBNAIL, SPRITESHEET])
def test_a_picture_that_has_no_room_takes_the_video_with_it(
    model: LoadedModel, ask: Any, tmp_path: Path, name: str
) -> None:
    (tmp_path / name).symlink_to("/dev/full")
    with pytest.raises(StorageFull):
        generate_video(model, ask(model.spec, **QUICK), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("asks", [1, 2, 3, 9])
def test_a_stop_while_files_are_written_leaves_none(model: LoadedModel, ask: Any, tmp_path: Path, asks: int) -> None:
    asked: list[str] = []
    stages = [""]

    def should_stop() -> bool:
        asked.extend(stages[-1:] if stages[-1] == "mp4_encode" else [])
        return len(asked) == asks

    with pytest.raises(GenerationCancelled):
        generate_video(
            model,
            ask(model.spec, **QUICK, output={"format": "zip"}),
            tmp_path,
            lambda progress: stages.append(progress.stage),
            should_stop,
        )
    assert list(tmp_path.iterdir()) == []
