"""Which queue comes first, on a real Redis."""

from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis

from ripple_core.contract.queue import JobQueue
from ripple_core.contract.request import Priority
from worker.order import GRACE_SECONDS, QueueOrder

NOW = 1_700_000_000.0
HEAD_START = 60.0


@pytest.fixture
def queue(redis_client: Redis) -> JobQueue:
    return JobQueue(redis_client)


def wait(queue: JobQueue, model: str, age_s: float, priority: Priority = "normal") -> None:
    """A job that was accepted so long ago; ids begin with that time."""
    queue.send(f"{int((NOW - age_s) * 1000):012x}{0:016x}", model, priority)


def order(queue: JobQueue, loaded: tuple[str, ...] = (), elsewhere: tuple[str, ...] = ()) -> list[str]:
    ordering = QueueOrder(queue, ["a", "b", "c"], HEAD_START, lambda: loaded, lambda: elsewhere, lambda: NOW)
    return [one.name for one in ordering.queues()]


def first(queue: JobQueue, loaded: tuple[str, ...] = (), elsewhere: tuple[str, ...] = ()) -> str:
    return next(name for name in order(queue, loaded, elsewhere) if name.startswith("ripple-normal"))


def test_the_more_urgent_priority_goes_first_whatever_is_loaded(queue: JobQueue) -> None:
    wait(queue, "a", 1, "high")
    wait(queue, "b", 1000)
    names = order(queue, loaded=("b",))
    assert [name.partition(":")[0] for name in names] == ["ripple-high"] * 3 + ["ripple-normal"] * 3 + [
        "ripple-low"
    ] * 3


def test_a_loaded_model_has_a_head_start_and_no_more(queue: JobQueue) -> None:
    wait(queue, "a", 50)
    wait(queue, "b", 1)
    assert first(queue) == "ripple-normal:a"
    assert first(queue, loaded=("b",)) == "ripple-normal:b"
    wait(queue, "c", HEAD_START + 2)
    assert first(queue, loaded=("b",)) == "ripple-normal:c"


def test_a_job_is_left_for_a_moment_to_workers_that_have_its_model(queue: JobQueue) -> None:
    wait(queue, "a", GRACE_SECONDS / 2)
    assert "ripple-normal:a" not in order(queue, loaded=("b",), elsewhere=("a",))
    assert "ripple-normal:a" in order(queue, loaded=("a",), elsewhere=("a",))
    assert "ripple-normal:a" in order(queue, loaded=("b",))
    wait(queue, "c", GRACE_SECONDS * 2)
    assert first(queue, elsewhere=("a", "b", "c")) == "ripple-normal:c"


def test_with_all_left_to_others_there_is_nothing_to_take(queue: JobQueue) -> None:
    assert order(queue, elsewhere=("a", "b", "c")) == []


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    ages=st.lists(st.floats(0, 1000), min_size=3, max_size=3),
    loaded=st.sets(st.sampled_from("abc")),
    elsewhere=st.sets(st.sampled_from("abc")),
)
def test_no_job_waits_longer_than_the_head_start_because_of_another_model(
    queue: JobQueue, redis_client: Redis, ages: list[float], loaded: set[str], elsewhere: set[str]
) -> None:
    redis_client.flushall()
    for model, age in zip("abc", ages, strict=True):
        wait(queue, model, age)
    names = order(queue, tuple(loaded), tuple(elsewhere))
    taken = [name[-1] for name in names if name.startswith("ripple-normal")]
    waited = dict(zip("abc", ages, strict=True))
    for before, after in pairwise(taken):
        assert waited[after] - waited[before] <= HEAD_START + 0.01
    for model in set("abc") - set(taken):
        assert waited[model] < GRACE_SECONDS + 0.01
