"""`ripple gc` as it is typed."""

import os
import time
from pathlib import Path

import pytest
from redis import Redis
from typer.testing import CliRunner

from ripple_core.cli import app
from ripple_core.contract.videos import LocalVideoStore


@pytest.fixture
def data_dir(redis_client: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder with a video of no job, two hours old."""
    monkeypatch.setenv("REDIS_URL", f"unix://{redis_client.connection_pool.connection_kwargs['path']}")
    with LocalVideoStore(tmp_path / "videos").staging("lost", "e") as staged:
        path = staged.folder / "video.mp4"
        path.write_bytes(b"x" * 2000)
        os.utime(path, (time.time() - 7200, time.time() - 7200))
        staged.publish()
    return tmp_path


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["gc", *arguments])
    assert result.exit_code == 0, result.output
    return result.output


def test_a_dry_run_leaves_everything_and_then_it_goes(data_dir: Path) -> None:
    video = data_dir / "videos" / "lost" / "e" / "video.mp4"
    told = run("--dry-run", "--data-dir", str(data_dir))
    assert "Would go" in told
    assert "2.0 kB" in told
    assert video.exists()
    assert "Removed" in run("--data-dir", str(data_dir))
    assert not video.exists()
    assert "0 bytes" in run("--data-dir", str(data_dir))


def test_it_works_on_the_embedded_redis_and_stops_it_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REDIS_URL", raising=False)
    assert "Removed" in run("--data-dir", str(tmp_path))
    assert (tmp_path / "redis").is_dir()
    assert not (tmp_path / "redis" / "redis.sock").exists()


@pytest.mark.parametrize(
    ("environment", "what"),
    [
        ({"REDIS_URL": "redis://127.0.0.1:1/0"}, "REDIS_URL"),
        ({"RIPPLE_STORE_URL": "elsewhere"}, "store_url"),
        ({}, "does not exist"),
    ],
)
def test_mistakes_are_told_in_one_line(
    environment: dict[str, str], what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REDIS_URL", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    result = CliRunner().invoke(app, ["gc", "--data-dir", str(tmp_path / "missing")])
    assert result.exit_code in (1, 2)
    assert what in result.stderr
    assert len(result.stderr.splitlines()) == 1
