"""Job records on a real Redis."""

import os
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError
from redis import Redis
from samples import FAILURE, METRICS, REQUEST, worker_info

from ripple_core.contract.errors import JobNotFound, StorageUnavailable
from ripple_core.contract.job import TRANSITIONS, JobError, JobRecord, JobStatus, Progress, new_job_id, utc_now
from ripple_core.contract.queue import JobQueue
from ripple_core.contract.retention import Retention
from ripple_core.contract.settings import SharedSettings
from ripple_core.contract.store import JobStore, events_key
from ripple_core.contract.upkeep import Upkeep
from ripple_core.contract.videos import LocalVideoStore

ERROR = JobError(code="generation_failed", message="x")


@pytest.fixture
def store(redis_client: Redis) -> JobStore:
    return JobStore(redis_client)


def add(store: JobStore) -> str:
    record = JobRecord(id=new_job_id(), created_at=utc_now(), request=REQUEST)
    pipeline = store.redis.pipeline()
    store.add(record, pipeline)
    pipeline.execute()
    return record.id


def claimed(store: JobStore, worker: str = "w") -> tuple[str, str]:
    job_id = add(store)
    assert store.claim(job_id, "e1", worker)
    return job_id, f"{worker}/e1"


def test_a_record_comes_back_as_it_was_stored(store: JobStore) -> None:
    job_id = add(store)
    record = store.get(job_id)
    assert (record.status, record.request, record.metrics) == (JobStatus.QUEUED, REQUEST, None)


def test_a_job_runs_to_its_end(store: JobStore) -> None:
    job_id, owner = claimed(store)
    assert store.set_progress(job_id, owner, Progress(stage="denoise", step=1, total_steps=4, fraction=0.25))
    assert store.get(job_id).progress.step == 1
    assert store.succeed(job_id, owner, METRICS, 4)
    record = store.get(job_id)
    assert (record.status, record.metrics, record.progress.fraction) == (JobStatus.SUCCEEDED, METRICS, 1.0)
    assert record.started_at is not None
    assert record.finished_at is not None
    assert record.finished_at >= record.started_at


def test_only_one_of_many_claims_wins(store: JobStore) -> None:
    job_id = add(store)
    wins: list[bool] = []
    threads = [
        threading.Thread(target=lambda n=n: wins.append(store.claim(job_id, str(n), "w"))) for n in range(20)
    ]  # fmt: skip
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(wins) == 1


def test_a_claim_that_was_sent_twice_because_its_answer_got_lost_still_holds(store: JobStore) -> None:
    job_id, owner = claimed(store)
    assert store.claim(job_id, "e1", "w")
    assert (store.get(job_id).execution, store.get(job_id).attempts) == (owner, 1)


@pytest.mark.parametrize("end", [status for status in JobStatus if status.is_terminal])
def test_a_terminal_status_never_changes(store: JobStore, end: JobStatus) -> None:
    job_id, owner = claimed(store)
    finish = {
        JobStatus.SUCCEEDED: lambda: store.succeed(job_id, owner, METRICS, 4),
        JobStatus.FAILED: lambda: store.fail(job_id, owner, ERROR),
        JobStatus.CANCELLED: lambda: store.finish_cancel(job_id, owner),
    }
    assert finish[end]()
    before = store.get(job_id)
    # The same end once more is what a client sends whose answer got lost.
    assert [status for status, attempt in finish.items() if attempt()] == [end]
    assert not store.claim(job_id, "e2", "w")
    assert not store.return_to_queue(job_id, owner, FAILURE)
    assert not store.set_progress(job_id, owner, Progress())
    after = store.request_cancel(job_id)
    assert after.model_copy(update={"cancel_requested": before.cancel_requested}) == before


def test_every_status_is_terminal_or_leads_on() -> None:
    assert {status for status in JobStatus if not status.is_terminal} == set(TRANSITIONS)


def test_an_execution_that_lost_the_job_can_no_longer_write(store: JobStore) -> None:
    job_id, owner = claimed(store)
    assert store.return_to_queue(job_id, owner, FAILURE)
    assert store.claim(job_id, "e2", "other")
    assert not store.set_progress(job_id, owner, Progress())
    assert not store.succeed(job_id, owner, METRICS, 4)
    assert store.should_stop(job_id, owner)
    assert store.get(job_id).attempts == 2
    assert store.succeed(job_id, "other/e2", METRICS, 4)


def test_a_queued_job_is_cancelled_at_once_and_a_running_one_is_asked(store: JobStore) -> None:
    assert store.request_cancel(add(store)).status == JobStatus.CANCELLED
    job_id, owner = claimed(store)
    record = store.request_cancel(job_id)
    assert (record.status, record.cancel_requested) == (JobStatus.RUNNING, True)
    assert store.should_stop(job_id, owner)
    assert not store.set_progress(job_id, owner, Progress())


def test_an_unknown_job_is_not_found(store: JobStore) -> None:
    for call in (store.get, store.request_cancel):
        with pytest.raises(JobNotFound):
            call("0" * 28)
    assert store.redis.keys("*") == []


def test_pages_go_from_newest_to_oldest_even_while_jobs_arrive(store: JobStore) -> None:
    ids = []
    for _ in range(5):
        ids.append(add(store))
        store.redis.time()
    ids.sort(reverse=True)
    first = store.page(None, None, 2)
    add(store)
    second = store.page(None, first[-1].id, 10)
    assert [record.id for record in first + second] == ids


def test_pages_filter_by_status_and_counts_agree(store: JobStore) -> None:
    queued, (running, _) = add(store), claimed(store)
    assert [record.id for record in store.page(JobStatus.QUEUED, None, 10)] == [queued]
    assert [record.id for record in store.page(JobStatus.RUNNING, None, 10)] == [running]
    assert store.counts() == dict.fromkeys(JobStatus, 0) | {JobStatus.QUEUED: 1, JobStatus.RUNNING: 1}


def test_every_change_is_an_event(store: JobStore) -> None:
    job_id, owner = claimed(store)
    store.set_progress(job_id, owner, Progress(stage="denoise"))
    store.fail(job_id, owner, ERROR)
    events = [fields[b"event"].decode() for _, fields in store.redis.xrange(events_key(job_id))]
    assert events == ["state", "state", "progress", "state"]


def test_a_record_whose_request_cannot_be_read_comes_to_its_end_all_the_same(store: JobStore) -> None:
    job_id, owner = claimed(store)
    store.redis.hset(f"ripple:job:{job_id}", "request", "{")
    assert store.fail(job_id, owner, ERROR)
    assert store.counts()[JobStatus.FAILED] == 1
    assert store.counts()[JobStatus.RUNNING] == 0
    assert [count.labels["model"] for count in store.counters()] == ["unknown"]


def test_what_cannot_be_read_is_not_quoted(store: JobStore) -> None:
    job_id = add(store)
    store.redis.hset(f"ripple:job:{job_id}", "request", '{"prompt": "secret words"}')
    with pytest.raises(ValidationError) as raised:
        store.get(job_id)
    assert "secret words" not in str(raised.value)


def test_the_wait_begins_again_when_a_job_comes_back(store: JobStore) -> None:
    job_id, owner = claimed(store)
    before = store.get(job_id)
    assert before.waiting_since == before.created_at
    assert store.return_to_queue(job_id, owner, None)
    after = store.get(job_id)
    assert before.started_at is not None
    assert after.waiting_since >= before.started_at


def test_a_preview_is_kept_while_the_job_runs_and_told_of(store: JobStore) -> None:
    job_id, owner = claimed(store)
    assert store.preview(job_id) is None
    store.set_preview(job_id, owner, 3, b"RIFF\x00\xff")
    store.set_preview(job_id, owner, 6, b"RIFF\xff\x00")
    assert store.preview(job_id) == b"RIFF\xff\x00"
    assert 0 < store.redis.ttl(f"ripple:job:{job_id}:preview") <= 3600
    told = [fields[b"data"] for _, fields in store.redis.xrange(events_key(job_id)) if fields[b"event"] == b"preview"]
    assert told == [b'{"step": 3}', b'{"step": 6}']


@pytest.mark.parametrize("end", ["succeed", "fail", "cancel", "return"])
def test_a_preview_goes_with_its_execution(store: JobStore, end: str) -> None:
    job_id, owner = claimed(store)
    store.set_preview(job_id, "another/execution", 3, b"x")
    assert store.preview(job_id) is None
    store.set_preview(job_id, owner, 3, b"x")
    ends = {
        "succeed": lambda: store.succeed(job_id, owner, METRICS, 4),
        "fail": lambda: store.fail(job_id, owner, ERROR),
        "cancel": lambda: store.finish_cancel(job_id, owner),
        "return": lambda: store.return_to_queue(job_id, owner, FAILURE),
    }
    assert ends[end]()
    assert store.preview(job_id) is None
    store.set_preview(job_id, owner, 6, b"too late")
    assert store.preview(job_id) is None
    told = [fields[b"event"] for _, fields in store.redis.xrange(events_key(job_id))]
    assert told.count(b"preview") == 1


def test_deleting_forgets_everything(store: JobStore) -> None:
    job_id, owner = claimed(store)
    store.fail(job_id, owner, ERROR)
    store.delete(job_id)
    day = utc_now().date()
    assert set(store.redis.keys("*")) == {b"ripple:counters", f"ripple:counters:{day}".encode()}


def test_what_ends_counts_for_its_day_too(store: JobStore) -> None:
    job_id, owner = claimed(store)
    today = utc_now().date()
    assert store.counters(today) == []
    store.succeed(job_id, owner, METRICS, 4)
    assert store.counters(today) == store.counters() != []
    assert store.counters(today - timedelta(days=1)) == []
    key = f"ripple:counters:{today}"
    assert 7 * 86400 < store.redis.ttl(key) <= 8 * 86400
    assert store.redis.ttl("ripple:counters") == -1


def test_a_heartbeat_lives_for_its_time(store: JobStore) -> None:
    store.beat(worker_info("w1"), timedelta(seconds=30))
    store.beat(worker_info("w2"), timedelta(milliseconds=1000))
    assert store.live_workers() == {"w1", "w2"}
    store.forget_worker("w1")
    assert store.live_workers() == {"w2"}
    time.sleep(1.1)
    assert store.live_workers() == set()


def test_record_and_message_are_one_transaction(store: JobStore) -> None:
    queue = JobQueue(store.redis)
    record = JobRecord(id=new_job_id(), created_at=utc_now(), request=REQUEST)
    pipeline = store.redis.pipeline()
    store.add(record, pipeline)
    queue.send(record.id, record.request.model, record.priority, pipeline)
    assert store.redis.keys("*") == []
    pipeline.execute()
    assert store.get(record.id).status == JobStatus.QUEUED
    assert queue.waiting() == {record.id}


class TestUpkeep:
    """What a crash leaves behind."""

    @pytest.fixture
    def upkeep(self, store: JobStore, tmp_path_factory: pytest.TempPathFactory) -> Upkeep:
        return self.of(store, tmp_path_factory.mktemp("videos"))

    def of(self, store: JobStore, videos: Path, name: str = "keeper", turn_seconds: float = 30.0) -> Upkeep:
        retention = Retention(store, LocalVideoStore(videos), SharedSettings())
        return Upkeep(store, JobQueue(store.redis), retention, 2, name, timedelta(seconds=turn_seconds))

    def test_a_dead_workers_job_returns_to_the_queue_and_fails_after_its_last_attempt(
        self, store: JobStore, upkeep: Upkeep
    ) -> None:
        job_id, _ = claimed(store, "dead")
        upkeep.run()
        record = store.get(job_id)
        assert (record.status, record.last_failure and record.last_failure.code) == (JobStatus.QUEUED, "worker_lost")
        assert JobQueue(store.redis).waiting() == {job_id}
        assert store.claim(job_id, "e2", "dead")
        upkeep.run()
        record = store.get(job_id)
        assert (record.status, record.error and record.error.code) == (JobStatus.FAILED, "worker_lost")
        assert record.error is not None
        assert record.error.message.endswith("That was attempt 2 of 2.")

    def test_a_dead_workers_job_that_was_to_be_cancelled_is(self, store: JobStore, upkeep: Upkeep) -> None:
        job_id, _ = claimed(store, "dead")
        store.request_cancel(job_id)
        upkeep.run()
        assert store.get(job_id).status == JobStatus.CANCELLED
        assert JobQueue(store.redis).waiting() == set()

    def test_a_live_workers_job_is_left_alone(self, store: JobStore, upkeep: Upkeep) -> None:
        store.beat(worker_info("alive"), timedelta(seconds=30))
        job_id, _ = claimed(store, "alive")
        upkeep.run()
        assert store.get(job_id).status == JobStatus.RUNNING, "what it told before it claimed says nothing"
        store.beat(worker_info("alive", jobs=(job_id,)), timedelta(seconds=30))
        upkeep.run()
        assert store.get(job_id).status == JobStatus.RUNNING

    def test_a_job_that_its_worker_says_it_is_not_at_returns_though_the_worker_lives(
        self, store: JobStore, upkeep: Upkeep
    ) -> None:
        job_id, _ = claimed(store, "alive")
        store.beat(worker_info("alive", jobs=("another",)), timedelta(seconds=30))
        upkeep.run()
        assert store.get(job_id).status == JobStatus.QUEUED

    def test_one_worker_does_it_until_it_no_longer_comes(self, store: JobStore, tmp_path: Path) -> None:
        first, second = self.of(store, tmp_path, "first", 0.3), self.of(store, tmp_path, "second", 0.3)
        first.run()
        job_id, _ = claimed(store, "dead")
        second.run()
        assert store.get(job_id).status == JobStatus.RUNNING
        first.run()
        assert store.get(job_id).status == JobStatus.QUEUED
        assert store.claim(job_id, "e2", "dead")
        time.sleep(0.4)
        second.run()
        first.run()
        assert store.get(job_id).status == JobStatus.FAILED
        assert store.redis.get("ripple:upkeep") == b"second"

    def test_a_queued_job_without_a_message_in_two_rounds_is_sent_again(self, store: JobStore, upkeep: Upkeep) -> None:
        job_id, queue = add(store), JobQueue(store.redis)
        upkeep.run()
        assert queue.waiting() == set(), "a worker may just be about to claim it"
        # A round right after the one before may leave the messages unread.
        deadline = time.monotonic() + 10
        while not queue.waiting() and time.monotonic() < deadline:
            upkeep.run()
        for _ in range(3):
            upkeep.run()
        assert queue.waiting() == {job_id}
        assert sum(queue.num_messages_by_queue().values()) == 1

    def test_retention_has_its_turn(self, store: JobStore, tmp_path: Path) -> None:
        videos = LocalVideoStore(tmp_path)
        videos.put_image("lost", b"x")
        os.utime(tmp_path / "images" / "lost.png", (0, 0))
        self.of(store, videos.folder).run()
        assert videos.find_image("lost") is None

    def test_a_video_store_that_fails_does_not_end_it(self, store: JobStore, tmp_path: Path) -> None:
        # No file system takes such a name.
        videos = LocalVideoStore(tmp_path / ("x" * 300))
        with pytest.raises(StorageUnavailable):
            videos.stored()
        self.of(store, videos.folder).run()
