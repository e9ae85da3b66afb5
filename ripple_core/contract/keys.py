"""API keys: made and revoked by `ripple keys`, looked up by the API. At rest there are only their digests."""

import hashlib
import re
import secrets
from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field
from redis import Redis

from ripple_core.contract.errors import InvalidRequest, UnknownApiKey, Violation
from ripple_core.contract.job import utc_now
from ripple_core.contract.store import PREFIX

_RATE_LIMIT = re.compile(r"[1-9]\d*/(second|minute|hour|day)", re.ASCII)
# Hash: digest of the token -> the key as JSON.
API_KEYS = f"{PREFIX}api_keys"
# There from the first key on, the last one's revocation included: who replaces a key that leaked must not let
# everybody in meanwhile.
KEYS_IN_USE = f"{PREFIX}keys_in_use"


class ApiKey(BaseModel):
    """Who may call, and how much."""

    id: str = Field(description="Stable name, not secret.")
    name: str
    created_at: datetime
    rate_limit: str | None = Field(None, description='Submissions, as in "60/minute"; the server\'s own by default.')
    max_active_jobs: int | None = Field(None, description="Queued and running jobs; the server's own by default.")


class ApiKeys:
    """All keys of a deployment.

    Raises:
        redis.RedisError: from every method, when Redis cannot be reached.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis: Any = redis

    def create(
        self, name: str, rate_limit: str | None = None, max_active_jobs: int | None = None
    ) -> tuple[ApiKey, str]:
        """Make a key; its token is told now and never again.

        Raises:
            InvalidRequest: when the rate limit is not like "60/minute".
        """
        if rate_limit is not None and not _RATE_LIMIT.fullmatch(rate_limit):
            allowed = "as in 60/minute; per second, minute, hour or day"
            raise InvalidRequest([Violation("rate_limit", f"is {rate_limit!r}; write it {allowed}", allowed)])
        token = f"tr_{secrets.token_urlsafe(32)}"
        key = ApiKey(
            id=f"key_{secrets.token_hex(6)}",
            name=name,
            created_at=utc_now(),
            rate_limit=rate_limit,
            max_active_jobs=max_active_jobs,
        )
        pipeline = self._redis.pipeline()
        pipeline.set(KEYS_IN_USE, 1)
        pipeline.hset(API_KEYS, digest(token), key.model_dump_json())
        pipeline.execute()
        return key, token

    def list(self) -> list[ApiKey]:
        """All keys, oldest first."""
        keys = [ApiKey.model_validate_json(value) for value in self._redis.hvals(API_KEYS)]
        return sorted(keys, key=lambda key: key.created_at)

    def get(self, key_id: str) -> ApiKey:
        """One key.

        Raises:
            UnknownApiKey: when there is none of this id.
        """
        for key in self.list():
            if key.id == key_id:
                return key
        raise UnknownApiKey(f"There is no API key {key_id}; `ripple keys list` shows all.")

    def revoke(self, key_id: str) -> None:
        """Make a key worthless at once; its jobs stay, seen by nobody.

        Raises:
            UnknownApiKey: when there is none of this id.
        """
        self.get(key_id)
        for kept, value in self._redis.hgetall(API_KEYS).items():
            if ApiKey.model_validate_json(value).id == key_id:
                self._redis.hdel(API_KEYS, kept)

    def any_exist(self) -> bool:
        """Whether anybody could be served who needs a key."""
        return bool(self._redis.exists(API_KEYS))

    def in_use(self) -> bool:
        """Whether requests need a key, on loopback too: since the first one was made."""
        return bool(self._redis.exists(KEYS_IN_USE))

    def abolish(self) -> None:
        """Revoke all keys and need none on loopback any more: all jobs are then everybody's."""
        self._redis.delete(API_KEYS, KEYS_IN_USE)


def digest(token: str) -> str:
    """What is kept of a token. A fast hash will do: 256 random bits cannot be guessed, unlike a password."""
    return hashlib.sha256(token.encode()).hexdigest()
