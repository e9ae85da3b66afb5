"""Where finished MP4s are kept. A local folder for now; the Protocol is what another store must offer."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


class VideoStore(Protocol):
    """Keeps one MP4 per job id."""

    def staging(self, job_id: str) -> AbstractContextManager["StagedVideo"]:
        """A context with a place to write to."""
        ...

    def find(self, job_id: str) -> Path | None:
        """The finished MP4, or None."""
        ...

    def delete(self, job_id: str) -> None:
        """Remove the MP4 if there is one."""
        ...


@dataclass(frozen=True)
class StagedVideo:
    """A video being written under a temporary name."""

    path: Path
    final: Path

    def publish(self) -> None:
        """Flush the file to disk, then give it its name."""
        with self.path.open("rb+") as file:
            os.fsync(file.fileno())
        self.path.replace(self.final)


class LocalVideoStore:
    """MP4s in one folder: complete or absent, never half-written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def staging(self, job_id: str) -> Iterator["StagedVideo"]:
        """Yield a place in the same folder to write to; what is not published is removed at the end."""
        self.folder.mkdir(parents=True, exist_ok=True)
        staged = StagedVideo(self.folder / f".{job_id}.{os.getpid()}.partial.mp4", self._path(job_id))
        try:
            yield staged
        finally:
            staged.path.unlink(missing_ok=True)

    def find(self, job_id: str) -> Path | None:
        """The finished MP4, or None."""
        path = self._path(job_id)
        return path if path.is_file() else None

    def delete(self, job_id: str) -> None:
        """Remove the MP4 if there is one."""
        self._path(job_id).unlink(missing_ok=True)

    def delete_older_than(self, seconds: float, now: float) -> list[str]:
        """Remove MP4s, and temporary files of dead writers, last changed more than `seconds` before `now`."""
        removed = []
        for path in self.folder.glob("*.mp4") if self.folder.is_dir() else ():
            # Other workers do the same at the same time.
            with suppress(FileNotFoundError):
                if now - path.stat().st_mtime > seconds:
                    path.unlink()
                    removed.append(path.stem)
        return removed

    def _path(self, job_id: str) -> Path:
        return self.folder / f"{job_id}.mp4"
