"""API keys on a real Redis."""

import pytest
from redis import Redis

from ripple_core.contract.errors import UnknownApiKey
from ripple_core.contract.keys import API_KEYS, ApiKey, ApiKeys, digest


@pytest.fixture
def keys(redis_client: Redis) -> ApiKeys:
    return ApiKeys(redis_client)


def find(redis: Redis, token: str) -> ApiKey | None:
    """As the API looks a token up."""
    value = redis.hget(API_KEYS, digest(token))
    return ApiKey.model_validate_json(value) if value else None


def test_a_key_is_found_by_its_token_until_it_is_revoked(keys: ApiKeys, redis_client: Redis) -> None:
    key, token = keys.create("laptop", "10/minute", 3)
    other, other_token = keys.create("phone")
    assert find(redis_client, token) == key
    assert keys.list() == [key, other]
    keys.revoke(key.id)
    assert find(redis_client, token) is None
    assert find(redis_client, other_token) == other
    assert keys.any_exist()
    keys.revoke(other.id)
    assert not keys.any_exist()


def test_no_token_is_kept(keys: ApiKeys, redis_client: Redis) -> None:
    _, token = keys.create("laptop")
    kept = repr([redis_client.dump(key) for key in redis_client.scan_iter()] + redis_client.hvals(API_KEYS))
    assert token not in kept
    assert token.removeprefix("tr_") not in kept


def test_tokens_are_long_and_differ(keys: ApiKeys) -> None:
    tokens = {keys.create("x")[1] for _ in range(20)}
    assert len(tokens) == 20
    assert {len(token) for token in tokens} == {46}


def test_an_unknown_key_cannot_be_revoked(keys: ApiKeys) -> None:
    with pytest.raises(UnknownApiKey, match="ripple keys list"):
        keys.revoke("key_0")
