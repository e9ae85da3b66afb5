"""Where the files of jobs are kept: the video with its thumbnail and sprite sheet, and the image it began from.

Every attempt at a job publishes under its own name, and the job's record says which attempt counts. So a worker that
was taken for dead and comes back cannot put its files in place of those that the record describes.
"""

import logging
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ripple_core.contract.errors import StorageFull, StorageUnavailable
from ripple_core.contract.request import VideoFormat
from ripple_core.contract.settings import SharedSettings
from ripple_core.contract.whole_files import (
    flush_all,
    partial_path,
    remove_abandoned,
    remove_at_once,
    remove_unfinished,
    written_whole,
)

logger = logging.getLogger(__name__)

THUMBNAIL = "thumbnail.webp"
SPRITESHEET = "spritesheet.jpg"

MEDIA_TYPES = {
    ".mp4": "video/mp4",
    ".webm": "video/webm",
    ".gif": "image/gif",
    ".zip": "application/zip",
    ".webp": "image/webp",
    ".jpg": "image/jpeg",
}


def video_file(video_format: VideoFormat) -> str:
    """Name of the video's own file, such as "video.mp4"."""
    return f"video.{video_format}"


@dataclass(frozen=True)
class StoredFiles:
    """What is kept of one job, its image included: the size together, and when the last of it was written.

    Attributes:
        job_id: whose files they are.
        num_bytes: what they take.
        written_at: seconds since 1970.
    """

    job_id: str
    num_bytes: int
    written_at: float


class StagedVideo(Protocol):
    """Files being written, invisible until they are published."""

    @property
    def folder(self) -> Path:
        """Where to write them."""
        ...

    def publish(self) -> None:
        """Make all files of the folder visible together.

        Raises:
            StorageUnavailable: when they cannot be stored; then none of them is visible.
        """
        ...

    def withdraw(self) -> None:
        """Remove what was published: another attempt counts."""
        ...


class VideoStore(Protocol):
    """Keeps the files of jobs by job id; complete or absent, never half-written.

    Raises:
        StorageUnavailable: (an OSError) from every method, when the store cannot be reached; StorageFull, which is
            one, when there is no room left.
    """

    def staging(self, job_id: str, attempt: str) -> AbstractContextManager[StagedVideo]:
        """A context with an empty folder to write to; what is not published is removed at its end."""
        ...

    def find(self, job_id: str, attempt: str, name: str) -> Path | None:
        """A file that this attempt published, on this machine, or None."""
        ...

    def keep_only(self, job_id: str, attempt: str) -> None:
        """Remove what other attempts published, and what they left on this machine: this one counts."""
        ...

    def put_image(self, job_id: str, content: bytes) -> None:
        """Keep the image a job begins from."""
        ...

    def find_image(self, job_id: str) -> Path | None:
        """That image on this machine, or None."""
        ...

    def delete(self, job_id: str) -> None:
        """Remove all files of a job, if there are any."""
        ...

    def stored(self) -> list[StoredFiles]:
        """What is kept, job by job."""
        ...

    def remove_abandoned(self) -> None:
        """Remove what dead writers left on this machine."""
        ...


def open_video_store(settings: SharedSettings) -> VideoStore:
    """The store that the settings name."""
    if settings.store_url is None:
        return LocalVideoStore(settings.videos_dir)
    # Optional, and seconds to import.
    from ripple_core.contract.s3_videos import S3VideoStore

    return S3VideoStore(settings.store_url, settings.data_dir / "cache")


class LocalVideoStore:
    """A folder with one folder for each job, in it one for each attempt, and the images in `images`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def staging(self, job_id: str, attempt: str) -> Iterator["_LocalStaged"]:
        """Yield a folder on the disk of the final one; what is not published is removed at the end."""
        with staging_folder(self.folder, job_id) as folder:
            yield _LocalStaged(folder, self.folder / job_id / attempt)

    def find(self, job_id: str, attempt: str, name: str) -> Path | None:
        """A file that this attempt published, or None."""
        path = self.folder / job_id / attempt / name
        return path if path.is_file() else None

    def keep_only(self, job_id: str, attempt: str) -> None:
        """Remove what other attempts published or left."""
        with storage_errors(self.folder):
            remove_unfinished(self.folder / job_id)
            for folder in (self.folder / job_id).glob("[!.]*"):
                if folder.name != attempt:
                    remove_at_once(folder)

    def put_image(self, job_id: str, content: bytes) -> None:
        """Keep the image a job begins from."""
        path = self._image(job_id)
        with storage_errors(self.folder), written_whole(path) as partial:
            partial.write_bytes(content)

    def find_image(self, job_id: str) -> Path | None:
        """That image, or None."""
        path = self._image(job_id)
        return path if path.is_file() else None

    def delete(self, job_id: str) -> None:
        """Remove all files of a job, if there are any."""
        with storage_errors(self.folder):
            remove_at_once(self.folder / job_id)
            self._image(job_id).unlink(missing_ok=True)

    def stored(self) -> list[StoredFiles]:
        """What is kept, job by job."""
        files: dict[str, list[os.stat_result]] = {}
        with storage_errors(self.folder):
            for path in self._images.glob("*.png"):
                self._add(path, path.stem, files)
            for folder in self.folder.glob("[!.]*"):
                if folder != self._images:
                    for path in folder.rglob("*"):
                        self._add(path, folder.name, files)
        return [
            StoredFiles(job_id, sum(file.st_size for file in found), max(file.st_mtime for file in found))
            for job_id, found in files.items()
        ]

    def _add(self, path: Path, job_id: str, files: dict[str, list[os.stat_result]]) -> None:
        # Others delete folders and files at the same time.
        with suppress(FileNotFoundError):
            if stat.S_ISREG((found := path.stat()).st_mode):
                files.setdefault(job_id, []).append(found)

    def remove_abandoned(self) -> None:
        """Remove what dead writers left."""
        with storage_errors(self.folder):
            remove_abandoned(self.folder)
            remove_abandoned(self._images)

    @property
    def _images(self) -> Path:
        return self.folder / "images"

    def _image(self, job_id: str) -> Path:
        return self._images / f"{job_id}.png"


@dataclass(frozen=True)
class _LocalStaged:
    folder: Path
    final: Path

    def publish(self) -> None:
        """Flush every file to disk, then give the folder its name."""
        with storage_errors(self.final.parent.parent):
            flush_all(list(self.folder.iterdir()))
            self.final.parent.mkdir(exist_ok=True)
            self.folder.replace(self.final)

    def withdraw(self) -> None:
        """Remove what was published."""
        with storage_errors(self.final.parent):
            remove_at_once(self.final)


@contextmanager
def staging_folder(parent: Path, job_id: str) -> Iterator[Path]:
    """Yield a new folder for a job's files; it is gone at the end, unless it has been renamed.

    Raises:
        StorageUnavailable: when it cannot be made.
    """
    folder = partial_path(parent / job_id)
    with storage_errors(parent):
        folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def storage_errors(place: object, *kinds: type[Exception]) -> Iterator[None]:
    """Turn OSErrors, and errors of these kinds, into one that clients may read; the log keeps what they said.

    Raises:
        StorageUnavailable: in their place; StorageFull when that is the reason.
    """
    told: tuple[type[Exception], ...] = (OSError, *kinds)
    try:
        yield
    except StorageUnavailable:
        raise
    except told as error:
        logger.warning("%s cannot be used: %s", place, error)
        if getattr(error, "errno", None) in StorageFull.errnos:
            raise StorageFull from error
        raise StorageUnavailable(getattr(error, "strerror", None) or type(error).__name__) from error
