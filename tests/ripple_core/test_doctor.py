"""`ripple doctor` on what there really is: this environment, one without torch, and servers of Redis and S3."""

import os
import re
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fleet import until
from redis import Redis

from ripple_core.contract.settings import SharedSettings
from ripple_core.contract.videos import open_video_store
from ripple_core.doctor import PARTS, Finding, examine

HIDDEN = "hush"
Examined = Callable[..., dict[str, Finding]]


@pytest.fixture
def examined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Examined:
    """What is found for the server, or other parts, by name."""
    monkeypatch.delenv("RIPPLE_STORE_URL", raising=False)

    def examined(*, parts: Any = ("server",), **settings: Any) -> dict[str, Finding]:
        found = examine(parts, SharedSettings(**{"data_dir": tmp_path} | settings))
        return {finding.name: finding for finding in found}

    return examined


@pytest.fixture(scope="module")
def without_torch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment that has all that we have but torch."""
    folder = tmp_path_factory.mktemp("without-torch")
    venv.create(folder, symlinks=True)
    theirs = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder)}))
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if not entry.name.startswith("torch"):
            (theirs / entry.name).symlink_to(entry)
    return folder / "bin" / "python"


def doctor(
    folder: Path, *arguments: str, python: str | Path = sys.executable, **environment: str
) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not re.match(r"RIPPLE_|REDIS_URL|OTEL_", name)}
    return subprocess.run(
        [python, "-c", "from ripple_core.cli import app; app()", "doctor", *arguments],
        cwd=folder,
        env=clean | {"COLUMNS": "200"} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_machine_that_has_everything_is_told_so_in_80_columns(tmp_path: Path) -> None:
    done = doctor(tmp_path, COLUMNS="80")
    assert done.returncode == 0, done.stdout
    assert "server: can run here\nworker: can run here\n" in done.stdout
    for name in ("Redis", "data folder", "torch", "GPU", "Triton", "ffmpeg"):
        assert f" {name} " in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "…" not in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_without_torch_a_worker_cannot_run_but_the_server_can(tmp_path: Path, without_torch: Path) -> None:
    alone = doctor(tmp_path, "--for", "server", python=without_torch)
    assert alone.returncode == 0, alone.stdout
    assert "torch" not in alone.stdout
    both = doctor(tmp_path, python=without_torch)
    assert both.returncode == 1
    assert "server: can run here\nworker: cannot run here, see torch\n" in both.stdout
    assert re.search(r"torch .* missing .* not installed\b.*\n.*-> pip install 'timeripple\[worker\]'", both.stdout)


def test_names_of_folders_are_shown_as_they_are(tmp_path: Path) -> None:
    folder = tmp_path / "[bold]videos[/bold]"
    done = doctor(tmp_path, "--for", "server", "--data-dir", str(folder))
    assert "[bold]videos[/bold]" in done.stdout


def test_a_data_folder_that_cannot_be_written_to_is_missing(examined: Examined, tmp_path: Path) -> None:
    assert examined(data_dir=tmp_path / "not" / "yet")["data folder"].state == "ok"
    (tmp_path / "file").touch()
    found = examined(data_dir=tmp_path / "file" / "below")["data folder"]
    assert (found.state, "RIPPLE_DATA_DIR" in found.remedy) == ("missing", True)


def test_redis_is_well_when_it_keeps_what_it_is_given(examined: Examined, own_redis: Any) -> None:
    with Redis.from_url(own_redis.url) as redis:
        found = examined(redis_url=own_redis.url)["Redis"]
        assert (found.state, "appendonly" in found.remedy) == ("warning", True)
        redis.config_set("appendonly", "yes")
        assert examined(redis_url=own_redis.url)["Redis"].state == "ok"
        redis.config_set("maxmemory-policy", "allkeys-lru")
        found = examined(redis_url=own_redis.url)["Redis"]
        assert (found.state, "noeviction" in found.remedy) == ("warning", True)
        # Until the first of its files is written, Redis does not end when asked to.
        until(lambda: not redis.info("persistence")["aof_rewrite_in_progress"], "the file is written")
    own_redis.stop()
    found = examined(redis_url=own_redis.url)["Redis"]
    assert (found.state, "REDIS_URL" in found.remedy) == ("missing", True)


def test_the_embedded_redis_is_found(examined: Examined) -> None:
    found = examined()["Redis"]
    assert (found.state, "embedded" in found.found) == ("ok", True)


@pytest.mark.parametrize("password", [HIDDEN, f"{HIDDEN}-wrong"])
def test_the_password_of_redis_is_not_printed(own_redis: Any, tmp_path: Path, password: str) -> None:
    with Redis.from_url(own_redis.url) as redis:
        redis.config_set("requirepass", HIDDEN)
    url = own_redis.url.replace("unix://", f"unix://:{password}@")
    done = doctor(tmp_path, "--for", "server", REDIS_URL=url)
    assert done.returncode == (password != HIDDEN)
    assert ("see Redis" in done.stdout) == (password != HIDDEN)
    assert HIDDEN not in done.stdout + done.stderr


@pytest.mark.parametrize(
    "url",
    [
        f"redis://:{HIDDEN}#x@127.0.0.1:9",
        f"redis://:x/{HIDDEN}@127.0.0.1:9",
        f"redis://:9/{HIDDEN}@127.0.0.1:9",
        f"redis://{HIDDEN}#x@127.0.0.1:9",
        f"redis://:{HIDDEN}@127.0.0.1:9",
        f"redis://:{HIDDEN}@[127.0.0.1:9",
        f"rediz://:{HIDDEN}@127.0.0.1:9",
    ],
)
def test_the_password_in_a_wrong_address_is_not_shown(examined: Examined, url: str) -> None:
    found = examined(redis_url=url)["Redis"]
    assert found.state == "missing"
    assert HIDDEN not in f"{found.found} {found.remedy}"


def test_an_s3_store_is_well_when_it_can_be_written_to(examined: Examined, s3_url: str, tmp_path: Path) -> None:
    assert examined(store_url=s3_url)["videos in S3"].state == "ok"
    assert open_video_store(SharedSettings(store_url=s3_url, data_dir=tmp_path)).stored() == []
    found = examined(store_url="s3://no-such-bucket/x")["videos in S3"]
    assert (found.state, "bucket" in found.found) == ("missing", True)


def test_traces_are_looked_at_when_they_are_to_be_sent(examined: Examined, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    assert "traces" not in examined()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    assert examined()["traces"].state == "ok"


def test_an_ffmpeg_that_lacks_what_videos_are_encoded_with_is_told(
    examined: Examined, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert examined(parts=PARTS)["ffmpeg"].state == "ok"
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", "/bin/true")
    found = examined(parts=PARTS)["ffmpeg"]
    assert (found.state, "libx264 and libvpx-vp9" in found.found) == ("warning", True)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", "/no/such/ffmpeg")
    assert examined(parts=PARTS)["ffmpeg"].state == "missing"


@pytest.mark.cuda
def test_a_gpu_that_torch_can_use_is_named(examined: Examined) -> None:
    import torch

    from ripple_core.attention.backend import kernels_unsupported

    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    found = examined(parts=PARTS)
    assert found["GPU"].state == "ok"
    assert torch.cuda.get_device_name(0) in found["GPU"].found
    reasons = kernels_unsupported(torch.empty(0, 64, dtype=torch.bfloat16, device="cuda"))
    assert (found["Triton"].state == "warning") == bool(reasons)
    assert [reason for reason in reasons if reason not in found["Triton"].found] == []
