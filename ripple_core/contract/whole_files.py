"""Files and folders that are complete or absent: written under another name, then renamed."""

import os
import secrets
import shutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

# A writer that has been silent for this long is dead.
_ABANDONED_SECONDS = 24 * 3600


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yield a name to write the file under; it gets its own when it is complete and on disk."""
    partial = partial_path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield partial
        flush(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """Return when the file is on disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def flush_all(paths: Sequence[Path]) -> None:
    """Return when all files are on disk; one commit of the file system's journal does for several that wait at once."""
    with ThreadPoolExecutor(max_workers=len(paths) or 1) as pool:
        # The list raises what went wrong.
        list(pool.map(flush, paths))


def remove_abandoned(folder: Path) -> None:
    """Remove the unfinished files and folders in it whose writers are dead."""
    for path in folder.glob(".*.partial"):
        # Others delete at the same time.
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > _ABANDONED_SECONDS:
                _remove(path)


def remove_unfinished(path: Path) -> None:
    """Remove what was to become this file or folder and is not complete, whoever writes it."""
    for partial in path.parent.glob(f".{path.name}.*.partial"):
        # Others delete at the same time.
        with suppress(FileNotFoundError):
            _remove(partial)


def _remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def remove_at_once(folder: Path) -> None:
    """Remove a folder so that nobody sees it with some of its files."""
    hidden = partial_path(folder)
    with suppress(FileNotFoundError):
        folder.replace(hidden)
        shutil.rmtree(hidden)


def partial_path(path: Path) -> Path:
    """A new name beside it, for what is not complete yet or no longer."""
    # Not the process id: containers on one volume share those.
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
