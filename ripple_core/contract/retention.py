"""What is kept for how long: files and records go when their time is over, the oldest files when there are too many.

A job's files go before its record, so that a crash between the two leaves nothing that no record knows. Files of queued
and running jobs stay, and so do files that are being sent to somebody. Several workers may do this at once.
"""

import time
from datetime import timedelta
from typing import Any

from pydantic import BaseModel, Field
from redis import Redis

from ripple_core.contract.errors import JobNotFound
from ripple_core.contract.settings import SharedSettings
from ripple_core.contract.store import PREFIX, JobStore
from ripple_core.contract.videos import StoredFiles, VideoStore

# Images are stored before their jobs are.
_ORPHAN_SECONDS = 3600
_EVERY = timedelta(seconds=60)
# A round ends some time; the next one goes on.
_RECORDS_OF_A_ROUND = 10_000


class ServingMarks:
    """Which jobs' files are being sent; a sorted set of job ids by when that will be over (seconds since 1970).

    Raises:
        redis.RedisError: from every method, when Redis cannot be reached.
    """

    _KEY = f"{PREFIX}serving"

    def __init__(self, redis: Redis) -> None:
        # Any: redis-py types every answer as bytes or text, and ours are bytes.
        self._redis: Any = redis

    def mark(self, job_id: str, seconds: float) -> None:
        """The job's files must stay for this time at least."""
        now = time.time()
        pipeline = self._redis.pipeline()
        pipeline.zremrangebyscore(self._KEY, "-inf", now)
        # Several clients may be served, each with its own end.
        pipeline.zadd(self._KEY, {job_id: now + seconds}, gt=True)
        pipeline.execute()

    def served(self, now: float) -> set[str]:
        """Ids of jobs whose files must stay."""
        return {job_id.decode() for job_id in self._redis.zrangebyscore(self._KEY, f"({now}", "+inf")}


class RetentionReport(BaseModel):
    """What one round removed."""

    removed_videos: int = Field(0, description="Jobs whose files were removed: over their time, or over the quota.")
    removed_orphans: int = Field(0, description="Files of no job that were removed, counted by the job they name.")
    removed_records: int = Field(0, description="Jobs that were forgotten.")
    freed_bytes: int = Field(0, description="What all removed files took.")
    kept_because_served: int = Field(0, description="Jobs that stay for now because somebody fetches their files.")


class Retention:
    """Removes what need not be kept any longer.

    Args:
        store: the job records.
        videos: their files.
        settings: for how long and how much.
    """

    def __init__(self, store: JobStore, videos: VideoStore, settings: SharedSettings) -> None:
        self.store = store
        self.videos = videos
        self.settings = settings
        self.serving = ServingMarks(store.redis)

    def run_if_due(self, now: float) -> RetentionReport | None:
        """A round, unless some worker began one less than a minute ago.

        Raises:
            StorageUnavailable, redis.RedisError: as `run`.
        """
        if not self.store.redis.set(f"{PREFIX}retention", "", ex=_EVERY, nx=True):
            return None
        return self.run(now)

    def run(self, now: float, dry_run: bool = False) -> RetentionReport:
        """One round at this time (seconds since 1970).

        Args:
            now: the time.
            dry_run: remove nothing, only tell what would go.

        Raises:
            StorageUnavailable: when files cannot be removed; what went before that is gone.
            redis.RedisError: when Redis cannot be reached.
        """
        if not dry_run:
            self.videos.remove_abandoned()
        return _Round(self, now, dry_run).run()


class _Round:
    def __init__(self, retention: Retention, now: float, dry_run: bool) -> None:
        self._store = retention.store
        self._videos = retention.videos
        self._settings = retention.settings
        self._serving = retention.serving
        self._now = now
        self._dry_run = dry_run
        self._report = RetentionReport()
        self._served: set[str] = set()
        oldest_first = sorted(self._videos.stored(), key=lambda files: files.written_at)
        self._files = {files.job_id: files for files in oldest_first}

    def run(self) -> RetentionReport:
        self._remove_records()
        self._remove_orphans()
        self._remove_expired()
        if self._settings.disk_quota_bytes is not None:
            self._keep_quota(self._settings.disk_quota_bytes)
        self._report.kept_because_served = len(self._served)
        return self._report

    def _remove_records(self) -> None:
        lifetime = self._settings.job_ttl_seconds
        for job_id in self._store.ended_before(self._now - lifetime, _RECORDS_OF_A_ROUND):
            files = self._files.get(job_id)
            if files is not None:
                if not self._remove(files):
                    continue
                self._report.removed_videos += 1
            # The tombstone stays for as long as the record did.
            if self._dry_run or self._store.expire(job_id, timedelta(seconds=lifetime)):
                self._report.removed_records += 1

    def _remove_orphans(self) -> None:
        old = self._written_before(self._now - _ORPHAN_SECONDS)
        known = self._store.known(files.job_id for files in old)
        self._report.removed_orphans += sum(self._remove(files) for files in old if files.job_id not in known)

    def _remove_expired(self) -> None:
        before = self._now - self._settings.video_ttl_seconds
        # Files are written before their job ends, so that newer ones need not be looked up.
        self._report.removed_videos += sum(
            self._remove(files) for files in self._written_before(before) if self._has_ended(files.job_id, before)
        )

    def _keep_quota(self, max_bytes: int) -> None:
        excess = sum(files.num_bytes for files in self._files.values()) - max_bytes
        for files in list(self._files.values()):
            if excess <= 0:
                break
            if self._has_ended(files.job_id, self._now) and self._remove(files):
                self._report.removed_videos += 1
                excess -= files.num_bytes

    def _written_before(self, time: float) -> list[StoredFiles]:
        return [files for files in self._files.values() if files.written_at < time]

    def _has_ended(self, job_id: str, before: float) -> bool:
        try:
            finished_at = self._store.get(job_id).finished_at
        except JobNotFound:
            return False
        return finished_at is not None and finished_at.timestamp() <= before

    def _remove(self, files: StoredFiles) -> bool:
        # Asked for each: a round may take long, and anybody may begin to fetch a file meanwhile.
        if files.job_id in self._serving.served(self._now):
            self._served.add(files.job_id)
            return False
        if not self._dry_run:
            self._videos.delete(files.job_id)
        del self._files[files.job_id]
        self._report.freed_bytes += files.num_bytes
        return True
