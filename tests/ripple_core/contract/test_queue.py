"""The queues: one for each priority of each model."""

import time

import pytest
from redis import Redis
from rq import Queue

from ripple_core.contract.job import new_job_id
from ripple_core.contract.queue import JobQueue, oldest_ages_s, queue_name


@pytest.fixture
def queue(redis_client: Redis) -> JobQueue:
    return JobQueue(redis_client)


def messages(queue: Queue) -> list[str]:
    return [message.rpartition("-")[0] for message in queue.get_job_ids()]


def test_a_workers_queues_are_ordered_by_priority_then_by_model(queue: JobQueue) -> None:
    assert [one.name for one in queue.of(["some/warm", "cold"])] == [
        "ripple-high:some/warm",
        "ripple-high:cold",
        "ripple-normal:some/warm",
        "ripple-normal:cold",
        "ripple-low:some/warm",
        "ripple-low:cold",
    ]


def test_a_job_waits_in_its_own_models_queue_alone(queue: JobQueue) -> None:
    queue.send("a", "m", "low")
    queue.send("b", "other", "low")
    assert [messages(one) for one in queue.of(["m"])] == [[], [], ["a"]]
    assert [messages(one) for one in queue.of(["other"])] == [[], [], ["b"]]


def test_a_job_may_go_before_all_others(queue: JobQueue) -> None:
    for job_id in ("a", "b"):
        queue.send(job_id, "m", "normal")
    queue.send("first", "m", "normal", at_front=True)
    assert messages(queue.of(["m"])[1]) == ["first", "a", "b"]


def test_counts_cover_every_model_and_only_our_queues(queue: JobQueue, redis_client: Redis) -> None:
    Queue("somebody-elses", connection=redis_client).enqueue("os.getpid")
    assert sum(queue.num_messages_by_queue().values()) == 0
    queue.send("a", "m", "high")
    queue.send("b", "m", "high")
    queue.send("c", "gone/model", "low")
    assert queue.num_messages_by_queue() == {"ripple-high:m": 2, "ripple-low:gone/model": 1}
    assert sum(queue.num_messages_by_queue().values()) == 3
    assert queue.waiting() == {"a", "b", "c"}


def test_a_job_between_queue_and_worker_still_waits(queue: JobQueue, redis_client: Redis) -> None:
    queue.send("a", "m", "normal")
    taken_from = queue.of(["m"])[1]
    redis_client.lmove(taken_from.key, taken_from.intermediate_queue_key)
    assert taken_from.count == 0
    assert queue.waiting() == {"a"}


def test_the_age_of_a_queue_is_that_of_its_head(queue: JobQueue) -> None:
    now = time.time()
    older, newer = (f"{round((now - age) * 1000):012x}{new_job_id()[12:]}" for age in (60, 10))
    queue.send(older, "m", "normal")
    queue.send(newer, "m", "normal")
    assert oldest_ages_s(queue.of(["m"]), now) == [None, pytest.approx(60, abs=0.01), None]
    assert [one.name for one in queue.of(["m"])][1] == queue_name("m", "normal")
