"""The load on a real Redis, with real workers, small."""

from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from ripple_core.bench.queue_load import QueuedLevel, measure_load
from ripple_core.contract.job import JobStatus
from ripple_core.contract.metrics import JobMetrics
from ripple_core.contract.queue import JobQueue
from ripple_core.contract.store import JobStore


def test_jobs_go_their_whole_way_with_the_asked_number_behind_them(
    own_redis: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A deployment's settings are not for these workers.
    monkeypatch.setenv("RIPPLE_MODEL", "no such model")
    seen: list[QueuedLevel] = []
    report = measure_load(own_redis.url, tmp_path, [0, 150], measured_jobs=40, on_level=seen.append)

    assert report.levels == seen
    empty, filled = report.levels
    assert (empty.queued, filled.queued) == (0, 150)
    assert empty.bytes_per_queued_job is None
    assert filled.bytes_per_queued_job is not None
    assert 1_000 < filled.bytes_per_queued_job < 100_000

    redis = Redis.from_url(own_redis.url)
    store = JobStore(redis)
    counts = store.counts()
    assert counts[JobStatus.SUCCEEDED] >= 2 * 40
    assert counts[JobStatus.FAILED] == 0
    ended = {count.labels["status"]: count.amount for count in store.counters() if count.name == "jobs_ended"}
    assert ended[JobStatus.SUCCEEDED] == counts[JobStatus.SUCCEEDED]
    # What is left still has its message: nothing was lost on the way.
    assert set(store.ids(JobStatus.QUEUED)) <= JobQueue(redis).waiting()
    newest = store.page(JobStatus.SUCCEEDED, None, 1)[0]
    assert isinstance(newest.metrics, JobMetrics)
    assert newest.metrics.latency_s.total >= newest.metrics.latency_s.queue
    assert [path.name for path in tmp_path.rglob("video.mp4") if newest.id in str(path)] == ["video.mp4"]
