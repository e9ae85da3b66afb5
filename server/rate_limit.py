"""How many submissions an API key may send in a time."""

import math
import time
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from limits import RateLimitItem, parse
from limits.storage import RedisStorage
from limits.strategies import MovingWindowRateLimiter
from redis import Redis
from starlette.concurrency import run_in_threadpool

from server.access import Caller
from server.errors import RateLimited

_POLICY = "submissions"


@dataclass(frozen=True)
class LimitState:
    """What is left, as header fields of draft-ietf-httpapi-ratelimit-headers-10; none for callers without a limit."""

    headers: dict[str, str]


class RateLimiter:
    """Counts submissions in Redis, so that all API processes share them. The window moves: no bursts at its edge."""

    def __init__(self, redis: Redis) -> None:
        storage = RedisStorage("redis://", connection_pool=redis.connection_pool, key_prefix="ripple:limits")
        self._limiter = MovingWindowRateLimiter(storage)

    def take(self, caller: Caller) -> LimitState:
        """Count one submission.

        Raises:
            RateLimited: when the caller's key has sent as many as it may.
        """
        if caller.owner is None or caller.rate_limit is None:
            return LimitState({})
        item = parse(caller.rate_limit)
        accepted = self._limiter.hit(item, caller.owner)
        window = self._limiter.get_window_stats(item, caller.owner)
        wait = max(math.ceil(window.reset_time - time.time()), 1)
        headers = _headers(item, window.remaining if accepted else 0, wait)
        if not accepted:
            message = f"At most {caller.rate_limit} submissions of one API key; try again in {wait} s."
            raise RateLimited(message, wait, headers)
        return LimitState(headers)


async def _submission_limit(request: Request) -> LimitState:
    caller: Caller = request.state.caller
    if caller.owner is None:
        return LimitState({})
    limiter: RateLimiter = request.app.state.rate_limiter
    return await run_in_threadpool(limiter.take, caller)


SubmissionLimit = Annotated[LimitState, Depends(_submission_limit)]


def _headers(item: RateLimitItem, remaining: int, reset_seconds: int) -> dict[str, str]:
    return {
        "RateLimit-Policy": f'"{_POLICY}";q={item.amount};w={item.get_expiry()}',
        "RateLimit": f'"{_POLICY}";r={remaining};t={reset_seconds}',
    }
