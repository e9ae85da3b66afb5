"""Where finished MP4s are kept. A local folder for now; the Protocol is what another store must offer."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol


class VideoStore(Protocol):
    """Keeps one MP4 per job id."""

    def staging(self, job_id: str) -> "Iterator[Path]":
        """A context with a temporary path to write to; published when the context ends without an error."""
        ...

    def find(self, job_id: str) -> Path | None:
        """The finished MP4, or None."""
        ...

    def delete(self, job_id: str) -> None:
        """Remove the MP4 if there is one."""
        ...


class LocalVideoStore:
    """MP4s in one folder: complete or absent, never half-written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def staging(self, job_id: str) -> Iterator[Path]:
        """Yield a temporary path in the same folder; flush it to disk and rename it at the end."""
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = self.folder / f".{job_id}.{os.getpid()}.partial.mp4"
        try:
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.replace(self._path(job_id))
        finally:
            temporary.unlink(missing_ok=True)

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
            if now - path.stat().st_mtime > seconds:
                path.unlink(missing_ok=True)
                removed.append(path.stem)
        return removed

    def _path(self, job_id: str) -> Path:
        return self.folder / f"{job_id}.mp4"
