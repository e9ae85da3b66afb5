"""What this machine has of what the server, a worker and their extras need, and what to do about what it has not."""

import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from redis import Redis, RedisError

State = Literal["ok", "warning", "missing"]
_LOW_DISK_BYTES = 5e9
_CONNECT_SECONDS = 3.0


@dataclass(frozen=True)
class Finding:
    """One thing that was looked for.

    Attributes:
        name: of it.
        state: `missing` when a part cannot run without it.
        found: what there is.
        remedy: what to do, nothing when it is well.
        needed_by: parts that want it.
    """

    name: str
    state: State
    found: str
    remedy: str = ""
    needed_by: str = ""


def examine(redis_url: str | None, data_dir: Path) -> Iterator[Finding]:
    """Look at everything, one after the other.

    Args:
        redis_url: the configured Redis; None for the embedded one.
        data_dir: where videos go.
    """
    yield _python()
    yield _redis(redis_url)
    yield _disk(data_dir)
    yield _package("torch", "missing", "pip install 'timeripple[worker]'", "worker")
    yield _package("diffusers", "missing", "pip install 'timeripple[worker]'", "worker")
    yield _cuda()
    yield _package("triton", "warning", "pip install triton; without it attention runs on PyTorch", "kernels on GPUs")
    yield _ffmpeg()
    yield _package("s3fs", "warning", "pip install 'timeripple[s3]'", "videos in S3")
    yield _package("opentelemetry-sdk", "warning", "pip install 'timeripple[otel]'", "traces")


def _python() -> Finding:
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    return Finding("Python", "ok", found, needed_by="everything")


def _package(name: str, otherwise: State, remedy: str, needed_by: str) -> Finding:
    try:
        return Finding(name, "ok", version(name), needed_by=needed_by)
    except PackageNotFoundError:
        return Finding(name, otherwise, "not installed", remedy, needed_by)


def _cuda() -> Finding:
    if find_spec("torch") is None:
        return Finding("GPU", "warning", "not looked for without torch", "install torch first", "worker")
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        return Finding("GPU", "ok", f"{', '.join(names)} (CUDA {torch.version.cuda})", needed_by="worker")
    built = f"torch was built for CUDA {torch.version.cuda}" if torch.version.cuda else "torch was built without CUDA"
    remedy = (
        "check the driver with nvidia-smi" if torch.version.cuda else "install a CUDA build of torch, if there is a GPU"
    )
    return Finding("GPU", "warning", f"none; {built}", f"{remedy}; the built-in model runs on CPUs", "worker")


def _ffmpeg() -> Finding:
    remedy = "pip install imageio-ffmpeg, or set IMAGEIO_FFMPEG_EXE"
    try:
        import imageio_ffmpeg

        path = imageio_ffmpeg.get_ffmpeg_exe()
        encoders = subprocess.run(
            [path, "-hide_banner", "-encoders"], capture_output=True, text=True, check=True
        ).stdout
    except (ImportError, RuntimeError, OSError, subprocess.CalledProcessError) as error:
        return Finding("ffmpeg", "missing", str(error), remedy, "worker")
    lacking = [name for name in ("libx264", "libvpx-vp9") if name not in encoders]
    if lacking:
        return Finding("ffmpeg", "warning", f"{path} without {', '.join(lacking)}", remedy, "worker")
    return Finding("ffmpeg", "ok", path, needed_by="worker")


def _redis(url: str | None) -> Finding:
    if url is None:
        found = "embedded, with its data in the data folder"
        return Finding("Redis", "ok", found, "set REDIS_URL for workers on other machines", "server, worker")
    remedy = "start it, or correct REDIS_URL"
    try:
        with Redis.from_url(url, socket_connect_timeout=_CONNECT_SECONDS, socket_timeout=_CONNECT_SECONDS) as redis:
            info = redis.info()
            keeps = redis.config_get("appendonly").get("appendonly") == "yes"
    except (RedisError, ValueError) as error:
        return Finding("Redis", "missing", str(error), remedy, "server, worker")
    found = f"{info['redis_version']}, {'append-only file on' if keeps else 'append-only file off'}"
    if not keeps:
        return Finding("Redis", "warning", found, "turn appendonly on, or a restart loses jobs", "server, worker")
    return Finding("Redis", "ok", found, needed_by="server, worker")


def _disk(folder: Path) -> Finding:
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free
    found = f"{free / 1e9:.1f} GB free for {folder}"
    if not os.access(there, os.W_OK):
        remedy = "make it writable, or name another with RIPPLE_DATA_DIR"
        return Finding("Data folder", "missing", f"{there} cannot be written", remedy, "server, worker")
    if free < _LOW_DISK_BYTES:
        return Finding("Data folder", "warning", found, "free some, or bound it with RIPPLE_DISK_QUOTA_BYTES", "worker")
    return Finding("Data folder", "ok", found, needed_by="server, worker")
