"""The API as it is deployed: a process of its own, a real Redis, the built-in model's folder."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from ports import free_port
from redis import Redis
from samples import METRICS

from ripple_core.contract.job import JobError
from ripple_core.contract.store import JobStore
from ripple_core.contract.videos import SPRITESHEET, THUMBNAIL, LocalVideoStore


@dataclass
class Api:
    """A running API and the store behind it."""

    client: httpx.Client
    store: JobStore
    videos: Path

    def submit(self, **fields: object) -> str:
        answer = self.client.post("/generate", json={"prompt": "a red circle"} | fields)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def claim(self, job_id: str) -> str:
        """What a worker does first; returns the owner of the execution."""
        assert self.store.claim(job_id, "e", "worker")
        return "worker/e"

    def finish(self, job_id: str, content: bytes = b"0123456789") -> None:
        """What a worker does that succeeds; all three files hold the same."""
        owner = self.claim(job_id)
        with LocalVideoStore(self.videos).staging(job_id, "e") as staged:
            for name in ("video.mp4", THUMBNAIL, SPRITESHEET):
                (staged.folder / name).write_bytes(content)
            staged.publish()
        assert self.store.succeed(job_id, owner, METRICS, 30)

    def fail(self, job_id: str) -> None:
        self.store.fail(job_id, self.claim(job_id), JobError(code="out_of_memory", message="too big"))


@contextmanager
def running_api(redis_url: str, data_dir: Path, more_settings: dict[str, str] | None = None) -> Iterator[Api]:
    port = free_port()
    settings = {"REDIS_URL": redis_url, "RIPPLE_DATA_DIR": str(data_dir), "RIPPLE_PORT": str(port)}
    settings |= more_settings or {}
    process = subprocess.Popen([sys.executable, "-m", "server"], env=os.environ | settings)
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and process.poll() is None:
            try:
                httpx.get(f"{url}/healthz")
                break
            except httpx.TransportError:
                time.sleep(0.05)
        # httpx alone would open 100 connections at most.
        limits = httpx.Limits(max_connections=None)
        with httpx.Client(base_url=url, timeout=20, limits=limits) as client:
            yield Api(client, JobStore(Redis.from_url(redis_url)), data_dir / "videos")
    finally:
        process.terminate()
        assert process.wait(timeout=20) == 0


@pytest.fixture(scope="session")
def session_api(redis_server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:  # type: ignore[no-untyped-def]
    with running_api(redis_server.url, tmp_path_factory.mktemp("data")) as api:
        yield api


@pytest.fixture
def api(session_api: Api, redis_client: Redis) -> Api:
    """The API on an empty store."""
    assert redis_client.dbsize() == 0
    return session_api


@pytest.fixture(scope="session")
def start_api() -> Callable[..., AbstractContextManager[Api]]:
    """For tests that need an API of their own."""
    return running_api
