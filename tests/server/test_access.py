"""API keys, ownership, signed links and limits of a key, on a server that is deployed as it would be."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis import Redis

from ripple_core.contract.keys import ApiKeys
from ripple_core.contract.links import sign, signing_secret
from server.settings import ServerSettings


@dataclass
class Guarded:
    """An API with two keys, and a client for each."""

    api: Any
    redis: Redis
    keys: ApiKeys

    def client(self, **limits: Any) -> httpx.Client:
        _, token = self.keys.create("somebody", **limits)
        return httpx.Client(base_url=self.api.client.base_url, headers={"Authorization": f"Bearer {token}"}, timeout=20)


@pytest.fixture(scope="module")
def running(module_redis: Any, start_api: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with start_api(module_redis.url, tmp_path_factory.mktemp("data")) as api:
        yield api


@pytest.fixture
def guarded(module_redis: Any, running: Any) -> Guarded:
    redis = Redis.from_url(module_redis.url)
    redis.flushall()
    keys = ApiKeys(redis)
    keys.create("first")
    return Guarded(running, redis, keys)


JOB = "0" * 28
ROUTES = [
    ("POST", "/generate"),
    ("POST", "/generate/estimate"),
    ("GET", "/jobs"),
    ("GET", f"/jobs/{JOB}"),
    ("DELETE", f"/jobs/{JOB}"),
    ("GET", f"/jobs/{JOB}/video"),
    ("GET", f"/jobs/{JOB}/thumbnail"),
    ("GET", f"/jobs/{JOB}/preview"),
    ("GET", f"/jobs/{JOB}/events"),
    ("GET", f"/jobs/{JOB}/image"),
    ("POST", f"/jobs/{JOB}/cancel"),
    ("GET", "/system"),
    ("POST", f"/jobs/{JOB}/link"),
    ("GET", "/models"),
    ("GET", "/metrics"),
    ("POST", "/v1/videos"),
    ("GET", "/v1/videos"),
    ("GET", f"/v1/videos/{JOB}"),
    ("DELETE", f"/v1/videos/{JOB}"),
    ("GET", f"/v1/videos/{JOB}/content"),
    ("POST", f"/v1/videos/{JOB}/remix"),
    ("GET", "/v1/models"),
    ("GET", "/nowhere"),
]


def test_without_a_key_nothing_but_health_and_documentation_is_served(guarded: Guarded) -> None:
    client = guarded.api.client
    for method, path in ROUTES:
        answer = client.request(method, path, json={"prompt": "x"} if method == "POST" else None)
        assert answer.status_code == 401, path
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        code = answer.json()["error"]["code"] if path.startswith("/v1") else answer.json()["code"]
        assert code == "unauthorized"
    for path in ("/", "/studio/app.js", "/healthz", "/docs", "/openapi.json"):
        assert client.get(path).status_code == 200
    assert client.get("/readyz").json()["code"] == "not_ready"
    assert guarded.redis.keys("ripple:job*") == []


@pytest.mark.parametrize("header", ["Bearer tr_wrong", "Bearer", "Basic dTpw", "tr_wrong"])
def test_a_wrong_key_is_refused(guarded: Guarded, header: str) -> None:
    answer = guarded.api.client.get("/jobs", headers={"Authorization": header})
    assert answer.status_code == 401
    assert answer.json()["code"] in ("invalid_api_key", "unauthorized")


def test_every_route_of_the_document_needs_a_key(guarded: Guarded) -> None:
    """A route that somebody adds is closed without anybody thinking of it."""
    client = guarded.api.client
    paths = client.get("/openapi.json").json()["paths"]
    for path, operations in paths.items():
        for method in operations:
            if path not in ("/healthz", "/readyz"):
                answer = client.request(method, re.sub(r"\{\w+\}", JOB, path))
                assert answer.status_code == 401, f"{method} {path}"


def test_a_key_sees_its_own_jobs_only(guarded: Guarded) -> None:
    with guarded.client() as mine, guarded.client() as yours:
        job = mine.post("/generate", json={"prompt": "x"}).json()
        path = job["links"]["self"]
        assert mine.get(path).json()["id"] == job["id"]
        for method, hidden in [
            ("GET", path),
            ("GET", f"{path}/events"),
            ("GET", f"{path}/video"),
            ("DELETE", path),
            ("POST", f"{path}/link"),
            ("GET", f"/v1/videos/{job['id']}"),
            ("DELETE", f"/v1/videos/{job['id']}"),
        ]:
            assert yours.request(method, hidden).status_code == 404, hidden
        assert yours.post(f"/v1/videos/{job['id']}/remix", json={"prompt": "x"}).status_code == 404
        assert yours.get("/jobs").json()["jobs"] == []
        assert yours.get("/v1/videos").json()["data"] == []
        assert [shown["id"] for shown in mine.get("/jobs").json()["jobs"]] == [job["id"]]
        assert mine.get(path).json()["status"] == "queued"


def test_two_keys_may_use_the_same_idempotency_key(guarded: Guarded) -> None:
    with guarded.client() as mine, guarded.client() as yours:
        ids = {
            client.post("/generate", json={"prompt": "x"}, headers={"Idempotency-Key": "1"}).json()["id"]
            for client in (mine, mine, yours)
        }
    assert len(ids) == 2


def test_a_revoked_key_is_refused_at_once(guarded: Guarded) -> None:
    with guarded.client() as mine:
        assert mine.get("/jobs").status_code == 200
        guarded.keys.revoke(guarded.keys.list()[-1].id)
        assert mine.get("/jobs").json()["code"] == "invalid_api_key"


def test_while_a_key_is_being_replaced_nobody_is_let_in(guarded: Guarded) -> None:
    client = guarded.api.client
    for key in guarded.keys.list():
        guarded.keys.revoke(key.id)
    assert client.get("/jobs").json()["code"] == "unauthorized"
    guarded.keys.abolish()
    assert client.get("/jobs").status_code == 200


def test_a_key_has_so_many_active_jobs_and_no_more(guarded: Guarded) -> None:
    with guarded.client(max_active_jobs=2) as mine, guarded.client() as yours:
        jobs = [mine.post("/generate", json={"prompt": "x"}).json() for _ in range(2)]
        answer = mine.post("/generate", json={"prompt": "x"})
        assert (answer.status_code, answer.json()["code"]) == (429, "too_many_active_jobs")
        assert int(answer.headers["Retry-After"]) >= 1
        assert yours.post("/generate", json={"prompt": "x"}).status_code == 202
        mine.delete(jobs[0]["links"]["self"])
        assert mine.post("/generate", json={"prompt": "x"}).status_code == 202


def test_a_key_submits_so_often_and_no_more(guarded: Guarded) -> None:
    with guarded.client(rate_limit="3/minute") as mine, guarded.client() as yours:
        answers = [mine.post("/generate", json={"prompt": "x"}) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [202] * 3
        assert [answer.headers["RateLimit-Policy"] for answer in answers] == ['"submissions";q=3;w=60'] * 3
        left = [re.fullmatch(r'"submissions";r=(\d+);t=\d+', answer.headers["RateLimit"]) for answer in answers]
        assert [match and match[1] for match in left] == ["2", "1", "0"]
        for path in ("/generate", "/v1/videos"):
            refused = mine.post(path, json={"prompt": "x"})
            assert refused.status_code == 429
            assert 1 <= int(refused.headers["Retry-After"]) <= 60
            assert refused.headers["RateLimit"].startswith('"submissions";r=0;t=')
        assert refused.json()["error"]["code"] == "rate_limited"
        assert mine.get("/jobs").status_code == 200, "only submissions are limited"
        assert mine.post("/generate/estimate", json={"prompt": "x"}).status_code == 200
        assert yours.post("/generate", json={"prompt": "x"}).status_code == 202


def test_a_key_needs_neither_a_local_name_nor_a_known_page(guarded: Guarded) -> None:
    foreign = {"Host": "videos.example.net", "Origin": "https://app.example.net", "Sec-Fetch-Site": "cross-site"}
    with guarded.client() as mine:
        assert mine.post("/generate", json={"prompt": "x"}, headers=foreign).status_code == 202


def test_while_redis_is_away_nobody_is_let_in(own_redis: Any, start_api: Any, tmp_path: Path) -> None:
    _, token = ApiKeys(Redis.from_url(own_redis.url)).create("x")
    with start_api(own_redis.url, tmp_path) as api:
        assert api.client.get("/metrics").status_code == 401
        own_redis.stop()
        for headers in ({}, {"Authorization": f"Bearer {token}"}, {"Authorization": "Bearer tr_wrong"}):
            for path in ("/jobs", "/metrics", f"/jobs/{JOB}/video?token=x"):
                answer = api.client.get(path, headers=headers)
                assert (answer.status_code, answer.json()["code"]) == (503, "redis_unavailable"), path
        assert api.client.get("/healthz").status_code == 200


class TestSignedLinks:
    """For players and webhook receivers that have no key."""

    @pytest.fixture
    def job(self, guarded: Guarded) -> Iterator[tuple[httpx.Client, str]]:
        with guarded.client() as mine:
            job_id = mine.post("/generate", json={"prompt": "x"}).json()["id"]
            guarded.api.finish(job_id)
            yield mine, job_id

    def test_a_link_opens_the_files_without_a_key_and_nothing_else(
        self, guarded: Guarded, job: tuple[httpx.Client, str]
    ) -> None:
        mine, job_id = job
        answer = mine.post(f"/jobs/{job_id}/link", params={"seconds": 60})
        assert answer.status_code == 201
        stranger, url = guarded.api.client, answer.json()["url"]
        assert stranger.get(url, headers={"Range": "bytes=2-5"}).content == b"2345"
        token = url.partition("token=")[2]
        for path in (f"/jobs/{job_id}/thumbnail", f"/jobs/{job_id}/spritesheet", f"/v1/videos/{job_id}/content"):
            assert stranger.get(path, params={"token": token}).status_code == 200
        for method, path in (("GET", f"/jobs/{job_id}"), ("DELETE", f"/jobs/{job_id}"), ("GET", "/jobs")):
            assert stranger.request(method, path, params={"token": token}).status_code == 401
        assert stranger.request("DELETE", url).status_code == 401

    def test_links_end_and_cannot_be_forged(self, guarded: Guarded, job: tuple[httpx.Client, str]) -> None:
        _, job_id = job
        secret = signing_secret(guarded.redis)
        stranger = guarded.api.client
        for token, code in (
            (sign(secret, job_id, time.time() - 1), "link_expired"),
            (sign(secret, "1" * 28, time.time() + 60), "invalid_link"),
            (sign("guess", job_id, time.time() + 60), "invalid_link"),
            ("", "unauthorized"),
            ("x", "invalid_link"),
        ):
            answer = stranger.get(f"/jobs/{job_id}/video", params={"token": token})
            assert answer.json()["code"] == code
            assert answer.status_code == (401 if code == "unauthorized" else 403)

    def test_there_is_no_link_to_a_video_that_is_not_there(self, guarded: Guarded) -> None:
        with guarded.client() as mine:
            job_id = mine.post("/generate", json={"prompt": "x"}).json()["id"]
            assert mine.post(f"/jobs/{job_id}/link").json()["code"] == "video_not_ready"


def start(**settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "server"],
        env=os.environ | {"RIPPLE_HOST": "0.0.0.0"} | settings,  # noqa: S104
        capture_output=True,
        text=True,
        check=False,
        timeout=40,
    )


@pytest.mark.usefixtures("redis_client")
def test_the_network_is_not_served_without_a_key(redis_server: Any) -> None:
    done = start(REDIS_URL=redis_server.url)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "0.0.0.0 can be reached from other machines and there is no API key" in done.stderr
    assert "ripple keys create" in done.stderr
    assert "--allow-anonymous" in done.stderr


@pytest.mark.usefixtures("redis_client")
def test_a_port_published_by_a_container_counts_as_the_network(redis_server: Any) -> None:
    done = start(REDIS_URL=redis_server.url, RIPPLE_HOST="127.0.0.1", RIPPLE_EXPOSED_HOST="192.168.0.2")
    assert done.returncode == 2
    assert "192.168.0.2" in done.stderr


def test_when_nobody_can_tell_whether_there_are_keys_it_stays_closed() -> None:
    done = start(REDIS_URL="unix:///nowhere.sock")
    assert done.returncode == 2
    assert "Redis cannot tell whether there are keys" in done.stderr


@pytest.mark.parametrize(
    ("settings", "needs_keys"),
    [
        ({"host": "127.0.0.1"}, False),
        ({"host": "127.9.9.9"}, False),
        ({"host": "::1"}, False),
        ({"host": "localhost"}, False),
        ({"host": "0.0.0.0"}, True),  # noqa: S104
        ({"host": "::"}, True),
        ({"host": "192.168.0.2"}, True),
        ({"host": "localhost.example.com"}, True),
        ({"host": "0.0.0.0", "exposed_host": "127.0.0.1"}, False),  # noqa: S104
        ({"host": "127.0.0.1", "exposed_host": "0.0.0.0"}, True),  # noqa: S104
        ({"host": "0.0.0.0", "allow_anonymous": True}, False),  # noqa: S104
    ],
    ids=str,
)
def test_beyond_loopback_keys_are_needed_unless_anybody_is_let_in(settings: dict[str, Any], needs_keys: bool) -> None:
    assert ServerSettings(**settings).needs_keys == needs_keys


def test_a_key_opens_the_network_and_the_last_one_revoked_closes_it(
    own_redis: Any, start_api: Any, tmp_path: Path
) -> None:
    keys = ApiKeys(Redis.from_url(own_redis.url))
    key, token = keys.create("x")
    with start_api(own_redis.url, tmp_path, {"RIPPLE_EXPOSED_HOST": "192.0.2.1"}) as api:
        assert api.client.get("/jobs").status_code == 401
        assert api.client.get("/jobs", headers={"Authorization": f"Bearer {token}"}).status_code == 200
        keys.revoke(key.id)
        assert api.client.get("/jobs").status_code == 401
