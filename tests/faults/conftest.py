"""Deployments for tests that break them."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from fleet import Fleet, running_fleet


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
