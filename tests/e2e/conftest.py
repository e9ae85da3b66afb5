"""`ripple up` as a user starts it."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from ports import free_port
from prometheus_binary import find_prometheus

RIPPLE = str(Path(sys.executable).parent / "ripple")


@dataclass
class Up:
    """A running `ripple up`."""

    process: subprocess.Popen[str]
    client: httpx.Client
    log: Path

    def submit(self, **fields: Any) -> str:
        """A job on a quarter of the built-in model's picture, so that a step takes a moment only."""
        small = {"prompt": "a red circle moving left on a dark background", "height": 64, "width": 64}
        body = small | {"num_inference_steps": 4} | fields
        answer = self.client.post("/generate", json=body)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def wait(self, job_id: str, status: str | None = None) -> dict[str, Any]:
        """The job once it has ended, or has the status."""
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            job: dict[str, Any] = self.client.get(f"/jobs/{job_id}").json()
            if job["status"] == status or job["status"] not in ("queued", "running"):
                return job
            time.sleep(0.05)
        raise AssertionError(f"job {job_id} is still {job['status']}: {job['progress']}")

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(timeout=60)


def environment() -> dict[str, str]:
    """Ours without any setting that would change what `ripple` does."""
    return {name: value for name, value in os.environ.items() if not re.match(r"RIPPLE_|REDIS_URL", name)}


@contextmanager
def running_up(data_dir: Path, settings: dict[str, str] | None = None) -> Iterator[Up]:
    port = free_port()
    log = data_dir.parent / f"{data_dir.name}-{port}.log"
    command = [RIPPLE, "up", "--port", str(port), "--data-dir", str(data_dir)]
    with log.open("w") as output:
        process = subprocess.Popen(
            command, env=environment() | (settings or {}), stdout=output, stderr=subprocess.STDOUT, text=True
        )
    try:
        deadline = time.monotonic() + 60
        while "is ready at" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            yield Up(process, client, log)
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(timeout=60)


@pytest.fixture(scope="session")
def start_up() -> Callable[..., AbstractContextManager[Up]]:
    return running_up


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with running_up(tmp_path_factory.mktemp("up") / "data") as running:
        yield running


@pytest.fixture(scope="session")
def prometheus_binaries() -> tuple[Path, Path]:
    """Prometheus and promtool."""
    found = find_prometheus(Path(sys.prefix) / "share" / "prometheus")
    if found is None:
        pytest.skip("needs prometheus and promtool: neither on the path nor to be had from Debian's archive")
    return found


@pytest.fixture
def ripple(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a command of `ripple` in an empty folder."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [RIPPLE, *arguments],
            cwd=tmp_path,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return run


@pytest.fixture
def ripple_process(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts commands of `ripple` that run until they are stopped."""
    processes: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen([RIPPLE, *arguments], cwd=tmp_path, env=environment(), text=True)
        processes.append(process)
        return process

    yield start
    for process in processes:
        if process.poll() is None:
            process.terminate()
            process.wait(timeout=60)
