"""Keeps the files of jobs in an S3 bucket, for deployments whose machines share no disk.

Objects, under the prefix of the URL:

    {job}/{attempt}/video.mp4, ...   the files of one attempt at the job; written once, never changed
    {job}/published                  the attempt that counts
    images/{job}.png                 the image a job begins from

S3 writes one object at a time, but each of them whole or not at all. So the files of an attempt become visible together
when `published` is written after them, and a second attempt takes the place of the first in the same way.
"""

import secrets
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import s3fs
from aiohttp import ClientError as HttpError
from botocore.exceptions import BotoCoreError, ClientError

from ripple_core.contract.file_cache import FileCache
from ripple_core.contract.videos import StoredFiles, staging_folder, storage_errors
from ripple_core.contract.whole_files import remove_abandoned

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
    def staging(self, job_id: str) -> Iterator["_S3Staged"]:
        """Yield a folder on this machine; it is removed at the end."""
        with staging_folder(self._staging, job_id) as folder:
            yield _S3Staged(folder, self, job_id)

    def publish(self, job_id: str, folder: Path) -> None:
        """Upload all files of the folder, then point to them."""
        with self._errors():
            earlier = self._attempt(job_id)
            attempt = secrets.token_hex(8)
            for path in folder.iterdir():
                self._files.put_file(str(path), f"{self._root}/{job_id}/{attempt}/{path.name}")
            self._files.pipe_file(f"{self._root}/{job_id}/published", attempt.encode())
            if earlier is not None:
                self._remove(f"{self._root}/{job_id}/{earlier}")

    def find(self, job_id: str, name: str) -> Path | None:
        """A copy of a published file, or None."""
        with self._errors():
            attempt = self._attempt(job_id)
            if attempt is None:
                return None
            return self._copy(f"{self._root}/{job_id}/{attempt}/{name}", f"{job_id}.{attempt}.{name}")

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
        """Remove all files of a job, if there are any; what points to them goes first."""
        with self._errors():
            self._files.rm_file(f"{self._root}/{job_id}/published")
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

    def _attempt(self, job_id: str) -> str | None:
        try:
            pointer: bytes = self._files.cat_file(f"{self._root}/{job_id}/published")
        except FileNotFoundError:
            return None
        return pointer.decode()

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
    job_id: str

    def publish(self) -> None:
        """Upload the files and make them visible together."""
        self.store.publish(self.job_id, self.folder)
