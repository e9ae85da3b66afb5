"""Deployments for tests that break them."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from fleet import Fleet, temporary_fleet
from slow_proxy import SlowProxy


@pytest.fixture
def start_fleet() -> Iterator[Callable[..., Fleet]]:
    """Starts a deployment of this test's own: `start_fleet(num_workers, RIPPLE_...="...")`."""
    with ExitStack() as running:

        def start(num_workers: int = 1, **settings: str) -> Fleet:
            return running.enter_context(temporary_fleet(num_workers, **settings))

        yield start


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    """Two workers, shared by the tests of one file, which leave it as they found it."""
    with temporary_fleet(2) as running:
        yield running


@pytest.fixture
def proxy(s3_endpoint: str, s3_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowProxy]:
    """Between the processes and S3; the tests themselves go past it."""
    del s3_url
    proxy = SlowProxy(s3_endpoint)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    yield proxy
    proxy.stop()


@pytest.fixture
def small_disk() -> Iterator[Callable[[Path, str], None]]:
    """Mounts a file system of so many bytes over a folder: `small_disk(folder, "100k")`."""
    mounted: list[Path] = []

    def mount(folder: Path, size: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            pytest.skip(f"a file system of its own cannot be mounted here: {done.stderr.strip()}")
        mounted.append(folder)

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
