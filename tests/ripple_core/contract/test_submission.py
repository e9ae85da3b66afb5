"""Admission: what may wait, whose turn it is, and submissions that are sent again."""

import threading
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from redis import Redis
from samples import REQUEST, worker_info

from ripple_core.contract.errors import IdempotencyConflict, QueueFull, TooManyActiveJobs
from ripple_core.contract.job import JobError, JobRecord, new_job_id, utc_now
from ripple_core.contract.queue import JobQueue
from ripple_core.contract.store import JobStore
from ripple_core.contract.submission import IdempotencyKey, Submissions


def new_record(**fields: Any) -> JobRecord:
    return JobRecord(id=new_job_id(), created_at=utc_now(), request=REQUEST, **fields)


class Door:
    """Submissions with small bounds, and what lies behind them."""

    def __init__(self, redis: Redis) -> None:
        self.store, self.queue = JobStore(redis), JobQueue(redis)
        self.submissions = Submissions(redis, self.store, self.queue, max_queued_jobs=3, max_queued_seconds=100)

    def submit(
        self, *records: JobRecord, max_active: int | None = None, key: IdempotencyKey | None = None, **fields: Any
    ) -> str:
        return self.submissions.submit(list(records) or [new_record(**fields)], max_active, key)

    def start(self, job_id: str) -> str:
        assert self.store.claim(job_id, "e", "w")
        return "w/e"


@pytest.fixture
def door(redis_client: Redis) -> Door:
    return Door(redis_client)


def test_record_and_message_appear_together(door: Door) -> None:
    record = new_record(priority="high", owner="k", batch=["a"], estimated_s=2.5)
    assert door.submit(record) == record.id
    assert door.store.get(record.id) == record
    assert door.queue.waiting() == {record.id}
    assert [queue.count for queue in door.queue.of([REQUEST.model])] == [1, 0, 0]
    assert door.store.queued_work() == (1, 2500)


def test_the_queue_takes_no_more_jobs_than_may_wait(door: Door) -> None:
    jobs = [door.submit() for _ in range(3)]
    with pytest.raises(QueueFull):
        door.submit()
    assert door.queue.waiting() == set(jobs)
    door.start(jobs[0])
    door.submit()


def test_a_batch_enters_as_a_whole_or_not_at_all(door: Door) -> None:
    door.submit()
    with pytest.raises(QueueFull):
        door.submit(new_record(), new_record(), new_record())
    assert door.store.queued_work()[0] == 1
    assert sum(door.queue.num_messages_by_queue().values()) == 1
    door.submit(new_record(), new_record())


def test_the_queue_takes_no_more_work_than_may_wait_and_says_when_it_will(door: Door) -> None:
    door.store.beat(worker_info("w"), timedelta(seconds=30))
    door.submit(estimated_s=80)
    with pytest.raises(QueueFull) as refused:
        door.submit(estimated_s=30)
    # 110 s of work where 100 may wait, for one worker.
    assert refused.value.retry_after_seconds == 10
    door.store.beat(worker_info("w2"), timedelta(seconds=30))
    with pytest.raises(QueueFull) as refused:
        door.submit(estimated_s=30)
    assert refused.value.retry_after_seconds == 5


def test_a_job_longer_than_the_bound_may_run_when_nothing_waits(door: Door) -> None:
    job_id = door.submit(estimated_s=500)
    with pytest.raises(QueueFull):
        door.submit(estimated_s=1)
    door.start(job_id)
    door.submit(estimated_s=1)


def test_racing_submissions_never_exceed_the_bound(door: Door) -> None:
    accepted: list[str] = []

    def submit() -> None:
        with suppress(QueueFull):
            accepted.append(door.submit())

    threads = [threading.Thread(target=submit) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(accepted) == 3
    assert door.queue.waiting() == set(accepted)


def test_a_submission_that_was_sent_twice_because_its_answer_got_lost_counts_once(door: Door) -> None:
    record = new_record(estimated_s=2)
    assert door.submit(record) == door.submit(record) == record.id
    assert door.store.queued_work() == (1, 2000)
    assert sum(door.queue.num_messages_by_queue().values()) == 1


def test_messages_of_cancelled_jobs_are_bounded_too(door: Door) -> None:
    """While no worker is free to drop them."""
    for _ in range(6):
        door.store.request_cancel(door.submit())
    with pytest.raises(QueueFull):
        door.submit()


def test_a_keys_quota_counts_what_waits_and_what_runs_and_nobody_elses(door: Door) -> None:
    first = door.submit(owner="a", max_active=2)
    owner = door.start(first)
    door.submit(owner="a", max_active=2)
    with pytest.raises(TooManyActiveJobs):
        door.submit(owner="a", max_active=2)
    door.submit(owner="b", max_active=2)
    door.store.fail(first, owner, JobError(code="x", message="x"))
    door.submit(owner="a", max_active=2)


def test_the_same_key_and_body_are_the_same_job_even_when_the_queue_is_full(door: Door) -> None:
    key = IdempotencyKey("a", "order-1", "f")
    first = door.submit(key=key)
    door.submit()
    door.submit()
    assert door.submit(key=key) == first
    assert sum(door.queue.num_messages_by_queue().values()) == 3


def test_the_same_key_with_another_body_is_a_conflict(door: Door) -> None:
    door.submit(key=IdempotencyKey("a", "order-1", "f"))
    with pytest.raises(IdempotencyConflict, match="another body"):
        door.submit(key=IdempotencyKey("a", "order-1", "g"))
    assert sum(door.queue.num_messages_by_queue().values()) == 1


def test_two_owners_may_use_the_same_key(door: Door) -> None:
    assert door.submit(key=IdempotencyKey("a", "1", "f")) != door.submit(key=IdempotencyKey("b", "1", "g"))


def test_a_key_is_free_again_when_its_job_is_deleted(door: Door) -> None:
    key = IdempotencyKey(None, "1", "f")
    first = door.submit(key=key)
    door.store.request_cancel(first)
    assert door.submit(key=key) == first, "a cancelled job is still that job"
    door.store.delete(first)
    assert door.submit(key=key) != first


def test_a_refused_submission_leaves_its_key_free(door: Door) -> None:
    for _ in range(3):
        job_id = door.submit()
    with pytest.raises(QueueFull):
        door.submit(key=IdempotencyKey(None, "1", "f"))
    door.start(job_id)
    door.submit(key=IdempotencyKey(None, "1", "g"))


def test_racing_submissions_of_one_key_make_one_job(door: Door) -> None:
    key = IdempotencyKey(None, "1", "f")
    ids: list[str] = []
    threads = [threading.Thread(target=lambda: ids.append(door.submit(key=key))) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(ids)) == 1
    assert sum(door.queue.num_messages_by_queue().values()) == 1


def test_places_follow_priority_then_age(door: Door) -> None:
    door.store.beat(worker_info("w"), timedelta(seconds=30))
    low = door.submit(priority="low", estimated_s=1)
    normal = door.submit(priority="normal", estimated_s=2)
    high = door.submit(priority="high", estimated_s=4)
    places = [door.store.place(job_id) for job_id in (high, normal, low)]
    assert [(place.position, place.wait_s) for place in places if place] == [(0, 0), (1, 4), (2, 6)]
    assert door.store.wait_at_end() == 6
    door.start(high)
    place = door.store.place(normal)
    assert (place and (place.position, place.wait_s)) == (0, 4), "a running job without progress counts as a whole"
    assert door.store.place(high) is None


def test_a_wait_nobody_can_know_is_not_made_up(door: Door) -> None:
    # Two of one millisecond may stand either way.
    last = max(door.submit(), door.submit())
    place = door.store.place(last)
    assert (place and (place.position, place.wait_s)) == (1, None)


def test_a_job_that_returns_keeps_its_place(door: Door) -> None:
    first, second = door.submit(estimated_s=1), door.submit(estimated_s=1)
    owner = door.start(first)
    assert door.store.return_to_queue(first, owner, None)
    assert [door.store.place(job_id).position for job_id in (first, second)] == [0, 1]  # type: ignore[union-attr]
    assert door.store.queued_work() == (2, 2000)


def test_pages_of_one_owner_hold_its_jobs_only(door: Door) -> None:
    mine = [door.submit(owner="a"), door.submit(owner="a")]
    door.submit(owner="b")
    assert [record.id for record in door.store.page(None, None, 10, "a")] == sorted(mine, reverse=True)
    assert [record.id for record in door.store.page(None, None, 10, "a", oldest_first=True)] == sorted(mine)
    door.store.request_cancel(mine[0])
    door.store.delete(mine[0])
    assert [record.id for record in door.store.page(None, None, 10, "a")] == [mine[1]]
