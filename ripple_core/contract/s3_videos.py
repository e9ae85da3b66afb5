"""Keeps the files of jobs in an S3 bucket, for deployments whose machines share no disk.

Objects, under the prefix of the URL:

    {job}/{attempt}/video.mp4, ...   the files of one attempt at the job; written once, never changed
    images/{job}.png                 the image a job begins from

S3 writes one object at a time, but each of them whole or not at all. The record names the attempt that counts only
after all its files are there, so that nobody sees a part of them.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import s3fs
from aiohttp import ClientError as HttpError
from botocore.exceptions import BotoCoreError, ClientError

from ripple_core.contract.file_cache import FileCache
from ripple_core.contract.videos import StoredFiles, staging_folder, storage_errors
from ripple_core.contract.whole_files import remove_abandoned, remove_unfinished

_CACHE_BYTES = 10 * 1024**3
# An outage is told within seconds, not after the minutes that botocore would try for.
_CLIENT = {"connect_timeout": 5, "read_timeout": 30, "retries": {"max_attempts": 2, "mode": "standard"}}


class S3VideoStore:
    """A prefix of a bucket; the AWS_* variables that all S3 clients know say where and as whom.

    Nobody else may keep anything under the prefix: what belongs to no job is removed in time.

    Args:
        url: s3://bucket/prefix.
        cache_folder: for copies of what is asked for, and for what is being written.
        cache_bytes: most bytes of those copies.
    """

    def __init__(self, url: str, cache_folder: Path, cache_bytes: int = _CACHE_BYTES) -> None:
        self._url = url
        self._root = url.removeprefix("s3://").rstrip("/")
        self._staging = cache_folder / "staging"
        self._cache = FileCache(cache_folder / "files", cache_bytes)
        # One request at a time for each file: s3fs would otherwise ask for the size first, even of the smallest.
        self._files = s3fs.S3FileSystem(
            use_listings_cache=False, skip_instance_cache=True, max_concurrency=1, config_kwargs=_CLIENT
        )

    @contextmanager
    def staging(self, job_id: str, attempt: str) -> Iterator["_S3Staged"]:
        """Yield a folder on this machine; it is removed at the end."""
        with staging_folder(self._staging, job_id) as folder:
            yield _S3Staged(folder, self, f"{job_id}/{attempt}")

    def upload(self, folder: Path, place: str) -> None:
        """Upload all files of the folder."""
        with self._errors():
            for path in folder.iterdir():
                self._files.put_file(str(path), f"{self._root}/{place}/{path.name}")

    def remove(self, place: str) -> None:
        """Remove what was uploaded there."""
        with self._errors():
            self._remove(f"{self._root}/{place}")

    def find(self, job_id: str, attempt: str, name: str) -> Path | None:
        """A copy of a file that this attempt published, or None."""
        remote = f"{self._root}/{job_id}/{attempt}/{name}"
        with self._errors():
            # Others may have deleted what this machine has a copy of.
            return self._copy(remote, f"{job_id}.{attempt}.{name}") if self._files.exists(remote) else None

    def keep_only(self, job_id: str, attempt: str) -> None:
        """Remove what other attempts published, and what they left on this machine."""
        with self._errors():
            remove_unfinished(self._staging / job_id)
            folder = f"{self._root}/{job_id}"
            others = [path for path in self._files.find(folder) if not path.startswith(f"{folder}/{attempt}/")]
            if others:
                self._files.rm(others)

    def put_image(self, job_id: str, content: bytes) -> None:
        """Keep the image a job begins from."""
        with self._errors():
            self._files.pipe_file(self._image(job_id), content)

    def find_image(self, job_id: str) -> Path | None:
        """A copy of that image, or None."""
        with self._errors():
            try:
                version = self._files.info(self._image(job_id))["ETag"].strip('"')
            except FileNotFoundError:
                return None
            return self._copy(self._image(job_id), f"{job_id}.{version}.png")

    def delete(self, job_id: str) -> None:
        """Remove all files of a job, if there are any."""
        with self._errors():
            self._remove(f"{self._root}/{job_id}")
            self._files.rm_file(self._image(job_id))
            self._cache.forget(f"{job_id}.")

    def stored(self) -> list[StoredFiles]:
        """What is kept, job by job, uploads that were not completed included."""
        found: dict[str, StoredFiles] = {}
        with self._errors():
            objects = self._files.find(self._root, detail=True).values()
        for item in objects:
            job_id, _, name = item["name"].removeprefix(f"{self._root}/").partition("/")
            if job_id == "images":
                job_id = Path(name).stem
            known = found.get(job_id, StoredFiles(job_id, 0, 0.0))
            written_at = max(known.written_at, item["LastModified"].timestamp())
            found[job_id] = StoredFiles(job_id, known.num_bytes + item["size"], written_at)
        return list(found.values())

    def remove_abandoned(self) -> None:
        """Remove what dead writers left on this machine."""
        with self._errors():
            remove_abandoned(self._staging)
            self._cache.remove_abandoned()

    def _copy(self, remote: str, name: str) -> Path | None:
        try:
            return self._cache.get(name, lambda path: self._files.get_file(remote, str(path)))
        except FileNotFoundError:
            # Deleted since it was looked up, or not one of the job's files.
            return None

    def _remove(self, folder: str) -> None:
        if paths := self._files.find(folder):
            self._files.rm(paths)

    def _image(self, job_id: str) -> str:
        return f"{self._root}/images/{job_id}.png"

    def _errors(self) -> AbstractContextManager[None]:
        return storage_errors(self._url, BotoCoreError, ClientError, HttpError)


@dataclass(frozen=True)
class _S3Staged:
    folder: Path
    store: S3VideoStore
    place: str

    def publish(self) -> None:
        """Upload the files."""
        self.store.upload(self.folder, self.place)

    def withdraw(self) -> None:
        """Remove them again."""
        self.store.remove(self.place)
