"""Videos are complete or absent."""

import os
import time
from pathlib import Path

import pytest

from ripple_core.contract.videos import LocalVideoStore


def test_a_published_video_is_found_and_deleted(tmp_path: Path) -> None:
    videos = LocalVideoStore(tmp_path / "new")
    with videos.staging("a") as staged:
        staged.path.write_bytes(b"mp4")
        assert videos.find("a") is None
        staged.publish()
    found = videos.find("a")
    assert found is not None
    assert found.read_bytes() == b"mp4"
    videos.delete("a")
    videos.delete("a")
    assert videos.find("a") is None


def test_an_error_while_writing_leaves_nothing(tmp_path: Path) -> None:
    videos = LocalVideoStore(tmp_path)

    def write_half() -> None:
        with videos.staging("a") as staged:
            staged.path.write_bytes(b"half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk"):
        write_half()
    assert list(tmp_path.iterdir()) == []


def test_old_videos_and_what_dead_writers_left_are_removed(tmp_path: Path) -> None:
    videos = LocalVideoStore(tmp_path)
    now = time.time()
    for name, age in (("old.mp4", 100), (".x.1.partial.mp4", 100), ("new.mp4", 10)):
        (tmp_path / name).write_bytes(b"x")
        os.utime(tmp_path / name, (now - age, now - age))
    assert set(videos.delete_older_than(60, now)) == {"old", ".x.1.partial"}
    assert [path.name for path in tmp_path.iterdir()] == ["new.mp4"]
