"""What retention removes, and what it must leave alone."""

import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis
from samples import REQUEST

from ripple_core.contract.errors import JobExpired, JobNotFound
from ripple_core.contract.job import JobError, JobRecord, new_job_id, utc_now
from ripple_core.contract.retention import Retention, RetentionReport, ServingMarks
from ripple_core.contract.settings import SharedSettings
from ripple_core.contract.store import JobStore
from ripple_core.contract.videos import LocalVideoStore

VIDEO = "video.mp4"
HOUR = 3600
DAY = 24 * HOUR


@dataclass
class World:
    """A job store and a video store, and the time that retention is told."""

    store: JobStore
    videos: LocalVideoStore
    now: float

    def queued(self) -> str:
        record = JobRecord(id=new_job_id(), created_at=utc_now(), request=REQUEST)
        pipeline = self.store.redis.pipeline()
        self.store.add(record, pipeline)
        pipeline.execute()
        return record.id

    def running(self) -> str:
        job_id = self.queued()
        assert self.store.claim(job_id, "e", "w")
        return job_id

    def ended(self, num_bytes: int | None = 100, age_seconds: float = 0.0) -> str:
        """A job that ended so long ago, with a video of this size, or without."""
        job_id = self.running()
        if num_bytes is not None:
            self.publish(job_id, num_bytes, age_seconds)
        # How it ended makes no difference here, and a failure needs no metrics.
        assert self.store.fail(job_id, "w/e", JobError(code="generation_failed", message="x"))
        ended_at = self.now - age_seconds
        self.store.redis.zadd("ripple:ended", {job_id: ended_at})
        stamp = datetime.fromtimestamp(ended_at, UTC).isoformat()
        self.store.redis.hset(f"ripple:job:{job_id}", "finished_at", stamp)
        return job_id

    def publish(self, job_id: str, num_bytes: int = 100, age_seconds: float = 0.0) -> None:
        with self.videos.staging(job_id, "e") as staged:
            (staged.folder / VIDEO).write_bytes(b"x" * num_bytes)
            staged.publish()
        self.date(self.videos.folder / job_id / "e" / VIDEO, age_seconds)

    def put_image(self, job_id: str, age_seconds: float = 0.0) -> None:
        self.videos.put_image(job_id, b"x" * 10)
        self.date(self.videos.folder / "images" / f"{job_id}.png", age_seconds)

    def date(self, path: Path, age_seconds: float) -> None:
        os.utime(path, (self.now - age_seconds, self.now - age_seconds))

    def has_video(self, job_id: str) -> bool:
        return self.videos.find(job_id, "e", VIDEO) is not None

    def run(self, dry_run: bool = False, **limits: Any) -> RetentionReport:
        limits = {"video_ttl_seconds": DAY, "job_ttl_seconds": 10 * DAY} | limits
        return Retention(self.store, self.videos, SharedSettings(**limits)).run(self.now, dry_run)


@pytest.fixture
def world(redis_client: Redis, tmp_path: Path) -> World:
    return World(JobStore(redis_client), LocalVideoStore(tmp_path), time.time())


def test_with_nothing_to_do_nothing_is_reported(world: World) -> None:
    assert world.run(disk_quota_bytes=1) == RetentionReport()


def test_a_video_goes_when_its_time_is_over_and_its_record_stays(world: World) -> None:
    old, young = world.ended(age_seconds=DAY + 1), world.ended(age_seconds=DAY - 1)
    assert world.run() == RetentionReport(removed_videos=1, freed_bytes=100)
    assert (world.has_video(old), world.has_video(young)) == (False, True)
    assert world.store.get(old).finished_at is not None
    assert world.run() == RetentionReport()


def test_a_record_goes_with_its_files_and_leaves_a_tombstone(world: World) -> None:
    with_files, without = world.ended(age_seconds=11 * DAY), world.ended(num_bytes=None, age_seconds=11 * DAY)
    young = world.ended(num_bytes=None, age_seconds=9 * DAY)
    report = world.run(video_ttl_seconds=20 * DAY)
    assert report == RetentionReport(removed_videos=1, removed_records=2, freed_bytes=100)
    for job_id in (with_files, without):
        with pytest.raises(JobExpired):
            world.store.get(job_id)
    assert not world.has_video(with_files)
    assert world.store.get(young)


def test_over_the_quota_the_oldest_videos_go_first(world: World) -> None:
    jobs = [world.ended(num_bytes=100, age_seconds=age) for age in (50, 40, 30, 20)]
    assert world.run(disk_quota_bytes=250) == RetentionReport(removed_videos=2, freed_bytes=200)
    assert [world.has_video(job_id) for job_id in jobs] == [False, False, True, True]


def test_expired_videos_make_room_before_the_quota_is_looked_at(world: World) -> None:
    world.ended(num_bytes=100, age_seconds=2 * DAY)
    young = world.ended(num_bytes=100, age_seconds=60)
    world.run(disk_quota_bytes=100)
    assert world.has_video(young)


def test_files_being_served_stay_whatever_is_over(world: World) -> None:
    job_id = world.ended(age_seconds=11 * DAY)
    ServingMarks(world.store.redis).mark(job_id, 60)
    assert world.run(disk_quota_bytes=1) == RetentionReport(kept_because_served=1)
    assert world.has_video(job_id)
    assert world.store.get(job_id), "the API would otherwise not find it for the next range"
    world.now += 61
    assert world.run().removed_records == 1


def test_queued_and_running_jobs_keep_what_they_have(world: World) -> None:
    queued, running = world.queued(), world.running()
    for job_id in (queued, running):
        world.put_image(job_id, age_seconds=100 * DAY)
    # Of an attempt whose worker died before it could tell.
    world.publish(running, age_seconds=100 * DAY)
    assert world.run(disk_quota_bytes=1) == RetentionReport()
    assert world.has_video(running)
    assert world.videos.find_image(queued)


def test_an_image_is_kept_as_long_as_the_video(world: World) -> None:
    job_id = world.ended(num_bytes=None, age_seconds=DAY - 60)
    # Its job waited in the queue for long.
    world.put_image(job_id, age_seconds=3 * DAY)
    world.run()
    assert world.videos.find_image(job_id)
    world.now += 61
    assert world.run() == RetentionReport(removed_videos=1, freed_bytes=10)
    assert world.videos.find_image(job_id) is None


def test_files_that_no_record_knows_go_after_an_hour(world: World) -> None:
    world.publish("lost", age_seconds=HOUR + 1)
    world.put_image("dropped", age_seconds=HOUR + 1)
    world.put_image("being-submitted", age_seconds=HOUR - 1)
    assert world.run(disk_quota_bytes=1) == RetentionReport(removed_orphans=2, freed_bytes=110)
    assert [files.job_id for files in world.videos.stored()] == ["being-submitted"]


def test_a_dry_run_tells_what_would_go_and_removes_nothing(world: World) -> None:
    world.ended(age_seconds=11 * DAY)
    world.ended(age_seconds=2 * DAY)
    world.ended(num_bytes=500, age_seconds=60)
    world.publish("lost", age_seconds=HOUR + 1)
    abandoned = world.videos.folder / ".a.b.partial"
    abandoned.mkdir()
    world.date(abandoned, 2 * DAY)
    before = world.videos.stored()
    told = world.run(dry_run=True, disk_quota_bytes=1)
    assert world.videos.stored() == before
    assert abandoned.exists()
    assert told == RetentionReport(removed_videos=3, removed_orphans=1, removed_records=1, freed_bytes=800)
    assert world.run(disk_quota_bytes=1) == told
    assert not abandoned.exists()


def test_one_worker_a_minute_begins_a_round(world: World) -> None:
    workers = [Retention(world.store, world.videos, SharedSettings()) for _ in range(3)]
    assert [worker.run_if_due(world.now) is None for worker in workers] == [False, True, True]


def test_a_crash_between_files_and_record_is_made_good(world: World) -> None:
    job_id = world.ended(age_seconds=11 * DAY)
    world.videos.delete(job_id)
    assert world.run() == RetentionReport(removed_records=1)
    with pytest.raises(JobNotFound):
        world.store.get(job_id)


class TestServingMarks:
    """Whose files are being sent."""

    def test_a_mark_lasts_for_its_time_and_is_never_shortened(self, redis_client: Redis) -> None:
        marks = ServingMarks(redis_client)
        marks.mark("a", 60)
        marks.mark("a", 10)
        marks.mark("b", 10)
        now = time.time()
        assert marks.served(now) == {"a", "b"}
        assert marks.served(now + 30) == {"a"}
        assert marks.served(now + 61) == set()

    def test_marks_that_are_over_take_no_space(self, redis_client: Redis) -> None:
        marks = ServingMarks(redis_client)
        marks.mark("a", -1)
        marks.mark("b", 60)
        assert redis_client.zcard("ripple:serving") == 1


@dataclass(frozen=True)
class Video:
    num_bytes: int
    age_seconds: int
    kind: str


VIDEOS = st.lists(
    st.builds(
        Video,
        num_bytes=st.integers(1, 1000),
        age_seconds=st.integers(1, 3 * DAY),
        kind=st.sampled_from(["ended", "ended", "ended", "served", "running"]),
    ),
    max_size=8,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(videos=VIDEOS, quota=st.integers(1, 4000))
def test_a_round_ends_within_the_quota_or_with_nothing_left_to_remove(
    redis_client: Redis, videos: Sequence[Video], quota: int
) -> None:
    """Only what must stay may exceed the quota, and no video goes while an older one stays that might have gone."""
    redis_client.flushall()
    with tempfile.TemporaryDirectory() as folder:
        world = World(JobStore(redis_client), LocalVideoStore(Path(folder)), time.time())
        jobs = [(_make(world, video), video) for video in videos]
        report = world.run(disk_quota_bytes=quota)
        left = [video for job_id, video in jobs if world.has_video(job_id)]
        gone = [video for job_id, video in jobs if not world.has_video(job_id)]
    removable = [video for video in left if video.kind == "ended"]
    assert sum(video.num_bytes for video in left) <= quota or not removable
    assert all(video.kind == "ended" for video in gone)
    assert all(video.age_seconds < DAY for video in removable)
    assert min((video.age_seconds for video in gone), default=3 * DAY) >= max(
        (video.age_seconds for video in removable), default=0
    )
    assert report.freed_bytes == sum(video.num_bytes for video in gone)
    # One video less would not have done.
    quota_victims = [video for video in gone if video.age_seconds < DAY]
    if quota_victims:
        # Of several of the same age the largest went last, or went without need.
        last = min(quota_victims, key=lambda video: (video.age_seconds, -video.num_bytes))
        assert sum(video.num_bytes for video in left) + last.num_bytes > quota


def _make(world: World, video: Video) -> str:
    if video.kind == "running":
        job_id = world.running()
        world.publish(job_id, video.num_bytes, video.age_seconds)
        return job_id
    job_id = world.ended(video.num_bytes, video.age_seconds)
    if video.kind == "served":
        ServingMarks(world.store.redis).mark(job_id, 60)
    return job_id
