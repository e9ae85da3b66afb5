"""Deployments for tests that break them."""

import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from fleet import Fleet, running_fleet
from slow_proxy import SlowProxy


@pytest.fixture
def start_fleet() -> Iterator[Callable[..., Fleet]]:
    """Starts a deployment of this test's own: `start_fleet(num_workers, RIPPLE_...="...")`."""
    with ExitStack() as running:

        def start(num_workers: int = 1, **settings: str) -> Fleet:
            # Not tmp_path: a unix socket's path must be short.
            folder = running.enter_context(tempfile.TemporaryDirectory(prefix="tr-", ignore_cleanup_errors=True))
            return running.enter_context(running_fleet(Path(folder), num_workers, **settings))

        yield start


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    """Two workers, shared by the tests of one file, which leave it as they found it."""
    with (
        tempfile.TemporaryDirectory(prefix="tr-", ignore_cleanup_errors=True) as folder,
        running_fleet(Path(folder), 2) as running,
    ):
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
