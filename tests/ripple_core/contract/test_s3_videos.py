"""What is particular to videos in S3; tests/ripple_core/contract/test_videos.py holds for every store."""

import os
import sys
import time
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer
from pydantic import ValidationError
from s3fs import S3FileSystem

from ripple_core.contract.errors import RippleError, StorageUnavailable
from ripple_core.contract.file_cache import FileCache
from ripple_core.contract.s3_videos import S3VideoStore
from ripple_core.contract.settings import SharedSettings

VIDEO = "video.mp4"
FIRST = "0" * 16


@pytest.fixture
def videos(s3_url: str, tmp_path: Path) -> S3VideoStore:
    return S3VideoStore(s3_url, tmp_path)


@pytest.fixture
def bucket() -> S3FileSystem:
    """Looks past the store; to be used together with s3_url."""
    return S3FileSystem(use_listings_cache=False, skip_instance_cache=True)


def publish(videos: S3VideoStore, job_id: str, content: bytes = b"video") -> None:
    with videos.staging(job_id, FIRST) as staged:
        (staged.folder / VIDEO).write_bytes(content)
        staged.publish()


def write_ten_bytes(path: Path) -> None:
    path.write_bytes(b"0123456789")


def test_everything_lies_under_the_prefix(videos: S3VideoStore, bucket: S3FileSystem, s3_url: str) -> None:
    publish(videos, "a")
    videos.put_image("a", b"image")
    root = s3_url.removeprefix("s3://")
    assert all(name.startswith(f"{root}/") for name in bucket.find(root.partition("/")[0]))
    videos.delete("a")
    assert bucket.find(root.partition("/")[0]) == []


def test_a_bucket_without_a_prefix_does(s3_url: str, tmp_path: Path) -> None:
    videos = S3VideoStore(s3_url.removesuffix("/some/prefix"), tmp_path)
    publish(videos, "a")
    assert videos.find("a", FIRST, VIDEO)
    assert [files.job_id for files in videos.stored()] == ["a"]
    videos.delete("a")
    assert videos.stored() == []


def test_an_upload_that_a_crash_cut_short_is_counted_and_deleted(
    videos: S3VideoStore, bucket: S3FileSystem, s3_url: str
) -> None:
    publish(videos, "whole")
    bucket.pipe_file(f"{s3_url}/cut/{FIRST}/thumbnail.webp", b"x")
    assert {files.job_id for files in videos.stored()} == {"whole", "cut"}
    videos.delete("cut")
    assert {files.job_id for files in videos.stored()} == {"whole"}
    assert videos.find("whole", FIRST, VIDEO)


def test_files_are_downloaded_once_and_keep_their_time(videos: S3VideoStore) -> None:
    publish(videos, "a")
    first = videos.find("a", FIRST, VIDEO)
    assert first is not None
    long_ago = time.time_ns() - 10**12
    os.utime(first, ns=(long_ago, long_ago))
    again = videos.find("a", FIRST, VIDEO)
    assert again == first
    assert again.stat().st_mtime_ns == long_ago
    assert again.stat().st_atime_ns > long_ago


def test_a_copy_of_a_deleted_video_is_not_served(s3_url: str, tmp_path: Path) -> None:
    here, there = S3VideoStore(s3_url, tmp_path / "here"), S3VideoStore(s3_url, tmp_path / "there")
    publish(there, "a")
    copy = here.find("a", FIRST, VIDEO)
    assert copy is not None
    there.delete("a")
    assert copy.exists()
    assert here.find("a", FIRST, VIDEO) is None


def test_the_copies_asked_for_the_longest_ago_go_first(tmp_path: Path) -> None:
    cache = FileCache(tmp_path, max_bytes=25)
    for age, name in enumerate(("d", "c", "b", "a")):
        path = cache.get(name, write_ten_bytes)
        os.utime(path, (time.time() - 10_000 - age, 0))
    cache.get("new", write_ten_bytes)
    assert {path.name for path in tmp_path.iterdir()} == {"new", "d"}


def test_copies_that_were_just_asked_for_stay(tmp_path: Path) -> None:
    cache = FileCache(tmp_path, max_bytes=1)
    for name in "ab":
        cache.get(name, write_ten_bytes)
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b"}


def test_a_download_that_fails_leaves_no_copy(tmp_path: Path) -> None:
    cache = FileCache(tmp_path, max_bytes=1)

    def half(path: Path) -> None:
        path.write_bytes(b"half")
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError):
        cache.get("a", half)
    assert list(tmp_path.iterdir()) == []


def test_an_outage_is_told_without_details_and_passes(
    s3_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    videos = S3VideoStore(s3_url, tmp_path)
    assert videos.find("a", FIRST, VIDEO) is None
    server.stop()
    with pytest.raises(StorageUnavailable) as told:
        videos.find("a", FIRST, VIDEO)
    assert isinstance(told.value, OSError)
    assert isinstance(told.value, RippleError)
    assert told.value.code == "storage_unavailable"
    assert str(port) not in str(told.value)
    with videos.staging("a", FIRST) as staged:
        (staged.folder / VIDEO).write_bytes(b"video")
        with pytest.raises(StorageUnavailable):
            staged.publish()
    back = ThreadedMotoServer("127.0.0.1", port=port, verbose=False)
    back.start()
    try:
        S3FileSystem(skip_instance_cache=True).makedirs(s3_url.split("/")[2], exist_ok=True)
        assert videos.find("a", FIRST, VIDEO) is None
        publish(videos, "a")
        assert videos.find("a", FIRST, VIDEO)
    finally:
        back.stop()


@pytest.mark.usefixtures("s3_url")
def test_a_bucket_that_does_not_exist_is_an_error_when_something_is_to_be_kept(tmp_path: Path) -> None:
    videos = S3VideoStore("s3://no-such-bucket/x", tmp_path)
    with pytest.raises(StorageUnavailable):
        videos.put_image("a", b"image")


def test_without_the_package_the_settings_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(ValidationError, match=r"pip install 'timeripple\[s3\]'"):
        SharedSettings(store_url="s3://bucket")
