"""Files of jobs are complete or absent, wherever they are kept."""

import os
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ripple_core.contract.errors import StorageUnavailable
from ripple_core.contract.settings import SharedSettings
from ripple_core.contract.videos import SPRITESHEET, THUMBNAIL, LocalVideoStore, VideoStore, open_video_store

VIDEO = "video.mp4"
FIRST, SECOND = "0" * 16, "1" * 16


@pytest.fixture(params=["folder", "s3"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> SharedSettings:
    url = request.getfixturevalue("s3_url") if request.param == "s3" else None
    return SharedSettings(data_dir=tmp_path / "data", store_url=url)


@pytest.fixture
def videos(settings: SharedSettings) -> VideoStore:
    return open_video_store(settings)


@pytest.fixture
def elsewhere(settings: SharedSettings) -> VideoStore:
    """The same store as another process sees it."""
    return open_video_store(settings)


def publish(videos: VideoStore, job_id: str, content: bytes = b"video", attempt: str = FIRST) -> None:
    with videos.staging(job_id, attempt) as staged:
        (staged.folder / THUMBNAIL).write_bytes(b"thumbnail of " + content)
        (staged.folder / VIDEO).write_bytes(content)
        staged.publish()


def read(videos: VideoStore, job_id: str, name: str = VIDEO, attempt: str = FIRST) -> bytes | None:
    path = videos.find(job_id, attempt, name)
    return path.read_bytes() if path else None


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@contextmanager
def full_disk(max_bytes: int) -> Iterator[None]:
    """No file may grow over this."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (max_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_store_nobody_wrote_to_is_empty(videos: VideoStore) -> None:
    assert videos.stored() == []
    assert read(videos, "a") is None
    assert videos.find_image("a") is None
    videos.delete("a")
    videos.remove_abandoned()


def test_files_become_visible_together_when_they_are_published(videos: VideoStore, elsewhere: VideoStore) -> None:
    with videos.staging("a", FIRST) as staged:
        for name in (VIDEO, THUMBNAIL):
            (staged.folder / name).write_bytes(name.encode())
        assert (elsewhere.find("a", FIRST, VIDEO), elsewhere.stored()) == (None, [])
        staged.publish()
        assert read(elsewhere, "a", THUMBNAIL) == THUMBNAIL.encode()
    assert read(elsewhere, "a") == VIDEO.encode()
    assert elsewhere.find("a", FIRST, SPRITESHEET) is None


def test_deleted_files_are_gone_for_everybody(videos: VideoStore, elsewhere: VideoStore) -> None:
    publish(videos, "a")
    publish(videos, "ab")
    assert read(elsewhere, "a")
    videos.delete("a")
    videos.delete("a")
    assert (read(elsewhere, "a"), read(elsewhere, "a", THUMBNAIL)) == (None, None)
    assert read(elsewhere, "ab"), "another job whose id begins like this one"


def test_attempts_stand_side_by_side_until_one_counts(videos: VideoStore, elsewhere: VideoStore) -> None:
    publish(videos, "a", b"first", FIRST)
    publish(videos, "a", b"second", SECOND)
    publish(videos, "b", b"other")
    assert [read(elsewhere, "a", attempt=attempt) for attempt in (FIRST, SECOND)] == [b"first", b"second"]
    videos.keep_only("a", SECOND)
    assert [read(elsewhere, "a", attempt=attempt) for attempt in (FIRST, SECOND)] == [None, b"second"]
    assert read(elsewhere, "b") == b"other"
    videos.delete("a")
    assert read(elsewhere, "a", attempt=SECOND) is None


def test_an_attempt_that_does_not_count_takes_its_files_back(videos: VideoStore, elsewhere: VideoStore) -> None:
    publish(videos, "a", b"counts", FIRST)
    with videos.staging("a", SECOND) as staged:
        (staged.folder / VIDEO).write_bytes(b"late")
        staged.publish()
        assert read(elsewhere, "a", attempt=SECOND) == b"late"
        staged.withdraw()
    assert [read(elsewhere, "a", attempt=attempt) for attempt in (FIRST, SECOND)] == [b"counts", None]
    videos.delete("a")
    assert elsewhere.stored() == []


def test_an_error_while_writing_leaves_nothing(videos: VideoStore, settings: SharedSettings) -> None:
    def write_half() -> None:
        with videos.staging("a", FIRST) as staged:
            (staged.folder / VIDEO).write_bytes(b"half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_half()
    assert videos.stored() == []
    assert files_below(settings.data_dir) == []


def test_an_image_is_kept_until_its_job_is_deleted(videos: VideoStore, elsewhere: VideoStore) -> None:
    videos.put_image("a", b"image")
    image = elsewhere.find_image("a")
    assert image is not None
    assert (image.read_bytes(), image.suffix) == (b"image", ".png")
    assert elsewhere.find_image("b") is None
    videos.delete("a")
    assert elsewhere.find_image("a") is None


def test_what_is_stored_is_told_job_by_job(videos: VideoStore) -> None:
    before = time.time()
    videos.put_image("a", b"x" * 1000)
    publish(videos, "a", b"x" * 10_000)
    videos.put_image("b", b"x" * 300)
    stored = {files.job_id: files for files in videos.stored()}
    assert stored.keys() == {"a", "b"}
    # Video, thumbnail and image, and some bytes of book-keeping at most.
    assert 0 <= stored["a"].num_bytes - 2 * 10_000 - len("thumbnail of ") - 1000 < 100
    assert stored["b"].num_bytes == 300
    # S3 tells whole seconds.
    assert before - 1 < stored["a"].written_at <= time.time()


def test_what_a_dead_writer_left_is_removed_after_a_day(videos: VideoStore) -> None:
    with videos.staging("a", FIRST) as young, videos.staging("b", FIRST) as old:
        (young.folder / VIDEO).write_bytes(b"half")
        (old.folder / VIDEO).write_bytes(b"half")
        two_days_ago = time.time() - 2 * 24 * 3600
        os.utime(old.folder, (two_days_ago, two_days_ago))
        videos.remove_abandoned()
        assert young.folder.exists()
        assert not old.folder.exists()


def test_what_a_dead_writer_left_is_removed_when_another_attempt_counts(videos: VideoStore) -> None:
    with videos.staging("a", FIRST) as dead, videos.staging("b", FIRST) as other:
        for staged in (dead, other):
            (staged.folder / VIDEO).write_bytes(b"half")
        publish(videos, "a", b"second", SECOND)
        videos.keep_only("a", SECOND)
        assert (dead.folder.exists(), other.folder.exists()) == (False, True)
    assert read(videos, "a", attempt=SECOND) == b"second"


def test_two_executions_of_a_job_write_apart(videos: VideoStore) -> None:
    with videos.staging("a", FIRST) as first, videos.staging("a", SECOND) as second:
        (first.folder / VIDEO).write_bytes(b"first")
        (second.folder / VIDEO).write_bytes(b"second")
        second.publish()
        first.publish()
    assert read(videos, "a", attempt=FIRST) == b"first"
    assert read(videos, "a", attempt=SECOND) == b"second"


def test_an_image_that_does_not_fit_the_disk_leaves_nothing(tmp_path: Path) -> None:
    videos = LocalVideoStore(tmp_path)
    with full_disk(1000), pytest.raises(StorageUnavailable, match="File too large"):
        videos.put_image("a", b"x" * 2000)
    assert videos.find_image("a") is None
    assert files_below(tmp_path) == []


def test_strangers_in_the_folder_are_left_alone(tmp_path: Path) -> None:
    videos = LocalVideoStore(tmp_path)
    (tmp_path / "note.txt").write_text("mine")
    assert videos.stored() == []
    videos.remove_abandoned()
    assert (tmp_path / "note.txt").exists()
