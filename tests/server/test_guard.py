"""Bodies without bound, and requests that a foreign web page makes a browser send."""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

LIMIT = 4096
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def guarded(module_redis: Any, start_api: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    settings = {
        "RIPPLE_MAX_BODY_BYTES": str(LIMIT),
        "RIPPLE_CORS_ORIGINS": "https://app.example.com",
        "RIPPLE_ALLOWED_HOSTS": "videos.example.com",
    }
    with start_api(module_redis.url, tmp_path_factory.mktemp("data"), settings) as api:
        yield api


def test_a_body_that_says_it_is_too_large_is_not_read(guarded: Any) -> None:
    answer = guarded.client.post("/generate", json={"prompt": "x", "image": "y" * LIMIT})
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
    assert "4,096 bytes" in answer.json()["detail"]
    openai = guarded.client.post("/v1/videos", json={"prompt": "x", "image": "y" * LIMIT})
    assert openai.json()["error"]["code"] == "body_too_large"


def test_a_body_without_a_length_is_cut_off_at_the_limit(guarded: Any) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        while sent < 50 * 1024**2:
            sent += 1024
            yield b" " * 1024

    try:
        answer = guarded.client.post("/generate", content=endless(), headers={"content-type": "application/json"})
        assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
    except httpx.WriteError:
        pass  # The server hung up while we were still sending.
    assert sent < 50 * 1024**2
    assert guarded.client.get("/healthz").status_code == 200


@pytest.mark.parametrize("length", ["x", "-1", "1e3", ""])
def test_a_length_that_is_no_number_is_refused(guarded: Any, length: str) -> None:
    url = guarded.client.base_url
    with socket.create_connection((url.host, url.port), timeout=10) as connection:
        connection.sendall(f"POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n".encode())
        assert connection.recv(4096).startswith(b"HTTP/1.1 400 ")


def test_a_body_within_the_limit_is_taken_whole(guarded: Any) -> None:
    prompt = "x" * 2000
    answer = guarded.client.post("/generate", content=iter([b'{"prompt": "', prompt.encode(), b'"}']), headers=JSON)
    assert answer.json()["request"]["prompt"] == prompt


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "http://[bad"},
        {"Sec-Fetch-Site": "cross-site"},
    ],
    ids=str,
)
def test_a_foreign_page_cannot_submit_or_delete(guarded: Any, headers: dict[str, str]) -> None:
    before = guarded.client.get("/jobs").json()
    answer = guarded.client.post("/generate", files={"prompt": (None, "x")}, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (403, "cross_origin")
    assert guarded.client.delete(f"/jobs/{'0' * 28}", headers=headers).status_code == 403
    assert guarded.client.get("/jobs").json() == before


def test_our_own_page_and_an_allowed_one_can(guarded: Any) -> None:
    own = str(guarded.client.base_url).rstrip("/")
    for origin in (own, "https://app.example.com"):
        answer = guarded.client.post("/generate", json={"prompt": "x"}, headers={"Origin": origin})
        assert answer.status_code == 202


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "x@localhost", "[bad", ""]
)
def test_a_name_that_was_bent_to_loopback_is_refused(guarded: Any, host: str) -> None:
    answer = guarded.client.get("/jobs", headers={"Host": host})
    assert (answer.status_code, answer.json()["code"]) == (403, "host_not_allowed")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:99", "[::1]:8000", "server:8000", "Videos.example.com"])
def test_local_and_listed_names_are_served(guarded: Any, host: str) -> None:
    assert guarded.client.get("/jobs", headers={"Host": host}).status_code == 200


def test_other_sites_may_read_only_if_they_are_listed(guarded: Any, api: Any) -> None:
    asking = {"Origin": "https://app.example.com", "Access-Control-Request-Method": "POST"}
    allowed = guarded.client.options("/generate", headers=asking | {"Access-Control-Request-Headers": "Authorization"})
    assert allowed.headers["access-control-allow-origin"] == "https://app.example.com"
    other = guarded.client.get("/jobs", headers={"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in other.headers
    assert "access-control-allow-origin" not in api.client.get("/jobs", headers=asking).headers, "off by default"


def test_a_listed_page_can_read_why_it_was_refused(guarded: Any) -> None:
    page = {"Origin": "https://app.example.com"}
    for answer in (
        guarded.client.get("/jobs", headers=page | {"Host": "evil.example"}),
        guarded.client.post("/generate", json={"prompt": "y" * LIMIT}, headers=page),
    ):
        assert answer.is_client_error
        assert answer.headers["access-control-allow-origin"] == page["Origin"]


def test_a_network_without_keys_has_the_same_guards(module_redis: Any, start_api: Any, tmp_path: Path) -> None:
    settings = {"RIPPLE_EXPOSED_HOST": "192.0.2.1", "RIPPLE_ALLOW_ANONYMOUS": "true"}
    with start_api(module_redis.url, tmp_path, settings) as api:
        assert api.client.get("/jobs").status_code == 200
        assert api.client.get("/jobs", headers={"Host": "evil.example"}).json()["code"] == "host_not_allowed"
        foreign = api.client.post("/generate", json={"prompt": "x"}, headers={"Origin": "https://evil.example"})
        assert foreign.json()["code"] == "cross_origin"


def test_refusals_are_counted(guarded: Any) -> None:
    guarded.client.get("/jobs", headers={"Host": "evil.example"})
    lines = guarded.client.get("/metrics").text
    assert 'status="403"' in lines
