"""Where the files of jobs are kept: the video with its thumbnail and sprite sheet, and the image it began from."""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ripple_core.contract.request import VideoFormat

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

# A writer that has been silent for this long is dead.
_ABANDONED_SECONDS = 24 * 3600


def video_file(video_format: VideoFormat) -> str:
    """Name of the video's own file, such as "video.mp4"."""
    return f"video.{video_format}"


@dataclass(frozen=True)
class StoredVideo:
    """The files of one finished job: their size together, and when they were published (seconds since 1970)."""

    job_id: str
    num_bytes: int
    published_at: float


class StagedVideo(Protocol):
    """Files being written, invisible until they are published."""

    folder: Path

    def publish(self) -> None:
        """Make all files of the folder visible together, in place of what an earlier attempt left."""
        ...


class VideoStore(Protocol):
    """Keeps the files of jobs by job id; complete or absent, never half-written.

    Raises:
        OSError: from every method, when the store cannot be reached or is full.
    """

    def staging(self, job_id: str) -> AbstractContextManager[StagedVideo]:
        """A context with an empty folder to write to; what is not published is removed at its end."""
        ...

    def find(self, job_id: str, name: str) -> Path | None:
        """A published file on this machine, or None."""
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

    def stored(self) -> list[StoredVideo]:
        """All published videos."""
        ...


class LocalVideoStore:
    """A folder with one folder for each job, and the images in `images`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def staging(self, job_id: str) -> Iterator["_LocalStaged"]:
        """Yield a folder beside the final one; what is not published is removed at the end."""
        staged = _LocalStaged(self.folder / f".{job_id}.{os.getpid()}.partial", self.folder / job_id)
        shutil.rmtree(staged.folder, ignore_errors=True)
        staged.folder.mkdir(parents=True)
        try:
            yield staged
        finally:
            shutil.rmtree(staged.folder, ignore_errors=True)

    def find(self, job_id: str, name: str) -> Path | None:
        """A published file, or None."""
        path = self.folder / job_id / name
        return path if path.is_file() else None

    def put_image(self, job_id: str, content: bytes) -> None:
        """Keep the image a job begins from."""
        path = self._image(job_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        with partial.open("wb") as file:
            file.write(content)
            os.fsync(file.fileno())
        partial.replace(path)

    def find_image(self, job_id: str) -> Path | None:
        """That image, or None."""
        path = self._image(job_id)
        return path if path.is_file() else None

    def delete(self, job_id: str) -> None:
        """Remove all files of a job, if there are any."""
        shutil.rmtree(self.folder / job_id, ignore_errors=True)
        self._image(job_id).unlink(missing_ok=True)

    def stored(self) -> list[StoredVideo]:
        """All published videos; folders that dead writers left are removed on the way."""
        found = []
        for folder in self.folder.iterdir() if self.folder.is_dir() else ():
            # Others delete at the same time.
            with suppress(FileNotFoundError):
                changed = folder.stat().st_mtime
                if folder.suffix == ".partial":
                    if time.time() - changed > _ABANDONED_SECONDS:
                        shutil.rmtree(folder, ignore_errors=True)
                elif folder != self._images:
                    num_bytes = sum(file.stat().st_size for file in folder.iterdir())
                    found.append(StoredVideo(folder.name, num_bytes, changed))
        return found

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
        for path in self.folder.iterdir():
            with path.open("rb+") as file:
                os.fsync(file.fileno())
        # Only a second attempt at a job whose first one was lost after publishing finds something here.
        shutil.rmtree(self.final, ignore_errors=True)
        self.folder.replace(self.final)
