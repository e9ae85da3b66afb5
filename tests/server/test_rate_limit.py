"""The limiter alone, on a real Redis; test_access.py has it behind the routes."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from redis import Redis

from server.access import Caller
from server.errors import RateLimited
from server.rate_limit import RateLimiter


@pytest.fixture
def limiter(redis_client: Redis) -> RateLimiter:
    return RateLimiter(redis_client)


def accepted(limiter: RateLimiter, caller: Caller) -> bool:
    try:
        limiter.take(caller)
    except RateLimited:
        return False
    return True


def test_at_once_or_one_by_one_no_more_than_the_limit_pass(limiter: RateLimiter) -> None:
    caller = Caller("key_a", "20/hour")
    with ThreadPoolExecutor(8) as pool:
        passed = sum(pool.map(lambda _: accepted(limiter, caller), range(60)))
    assert passed == 20
    assert not accepted(limiter, caller)


def test_processes_share_their_counts_and_keys_do_not(limiter: RateLimiter, redis_client: Redis) -> None:
    other_process = RateLimiter(redis_client)
    assert accepted(limiter, Caller("key_a", "1/hour"))
    assert not accepted(other_process, Caller("key_a", "1/hour"))
    assert accepted(other_process, Caller("key_b", "1/hour"))


def test_it_succeeds_after_the_wait_that_was_told(limiter: RateLimiter) -> None:
    caller = Caller("key_a", "2/3second")
    while accepted(limiter, caller):
        pass
    with pytest.raises(RateLimited) as refusal:
        limiter.take(caller)
    time.sleep(refusal.value.retry_after_seconds)
    assert accepted(limiter, caller)


def test_the_headers_say_what_is_left(limiter: RateLimiter) -> None:
    caller = Caller("key_a", "2/day")
    first, second = limiter.take(caller), limiter.take(caller)
    assert first.headers["RateLimit-Policy"] == '"submissions";q=2;w=86400'
    assert first.headers["RateLimit"].startswith('"submissions";r=1;t=')
    assert second.headers["RateLimit"].startswith('"submissions";r=0;t=')
    with pytest.raises(RateLimited, match="2/day") as refusal:
        limiter.take(caller)
    assert 1 <= refusal.value.retry_after_seconds <= 86400
    assert refusal.value.headers["RateLimit"] == f'"submissions";r=0;t={refusal.value.retry_after_seconds}'


def test_callers_without_a_key_have_no_limit(limiter: RateLimiter, redis_client: Redis) -> None:
    assert limiter.take(Caller()).headers == {}
    assert redis_client.dbsize() == 0
