"""Copies of remote files on this machine, bounded in size."""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ripple_core.contract.whole_files import remove_abandoned, written_whole

# What was asked for so recently may be about to be opened. Files that are open outlive their removal.
_IN_USE_SECONDS = 600


class FileCache:
    """A folder of files that never change; those not asked for the longest go first.

    Args:
        folder: made when it is needed.
        max_bytes: size it is cut back to after each download.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes

    def get(self, name: str, download: Callable[[Path], None]) -> Path:
        """The copy of this name, complete; downloaded to the path it is given when there is none."""
        path = self._folder / name
        if not _touch(path):
            with written_whole(path) as partial:
                download(partial)
            _touch(path)
            self._shrink()
        return path

    def forget(self, prefix: str) -> None:
        """Remove all copies whose names begin so."""
        for path in self._folder.glob(f"{prefix}*"):
            path.unlink(missing_ok=True)

    def remove_abandoned(self) -> None:
        """Remove what dead downloads left."""
        remove_abandoned(self._folder)

    def _shrink(self) -> None:
        files = []
        for path in self._folder.glob("[!.]*"):
            # Others shrink it at the same time.
            with suppress(FileNotFoundError):
                status = path.stat()
                files.append((status.st_atime, status.st_size, path))
        excess = sum(num_bytes for _, num_bytes, _ in files) - self._max_bytes
        for asked_for_at, num_bytes, path in sorted(files):
            if excess <= 0 or time.time() - asked_for_at < _IN_USE_SECONDS:
                break
            path.unlink(missing_ok=True)
            excess -= num_bytes


def _touch(path: Path) -> bool:
    """Note that the file was asked for; False when it is not there.

    Its time of change stays: clients compare it when they go on with a download.
    """
    try:
        os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))
    except FileNotFoundError:
        return False
    return True
