"""Connections to Redis that notice when it is away."""

from redis import Redis
from redis.backoff import ExponentialBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

_LONGEST_PAUSE_SECONDS = 1.0


def connect(url: str, timeout_seconds: float = 5.0, retries: int = 1) -> Redis:
    """A client; it connects at its first command.

    Without a time-out a host that vanishes, rather than refuses, would be waited for until the kernel gives up.

    Args:
        url: redis://, rediss:// or unix://.
        timeout_seconds: for connecting, and for each answer.
        retries: further tries of a command that found no connection or no answer.
    """
    return Redis.from_url(
        url,
        socket_timeout=timeout_seconds,
        socket_connect_timeout=timeout_seconds,
        retry=Retry(ExponentialBackoff(cap=_LONGEST_PAUSE_SECONDS, base=0.05), retries),
        retry_on_error=[RedisConnectionError, RedisTimeoutError],
    )
