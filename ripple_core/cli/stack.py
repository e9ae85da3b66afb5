"""API, worker and Redis as child processes of one command."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from filelock import FileLock, Timeout

from ripple_core.cli.errors import require_worker_extra
from ripple_core.contract.errors import DataFolderInUse
from ripple_core.contract.models import find_model
from ripple_core.contract.settings import SharedSettings
from ripple_core.embedded_redis import EmbeddedRedis

# A worker may have models to load first; a process that ends is noticed at once.
_READY_SECONDS = 1800.0
_STOP_SECONDS = 90.0


@dataclass
class Stack:
    """A running API and worker."""

    url: str
    processes: dict[str, subprocess.Popen[bytes]]

    def wait_until_ready(self) -> None:
        """Return once /readyz says so.

        Raises:
            RuntimeError: when a process ends first, or it takes too long.
        """
        deadline = time.monotonic() + _READY_SECONDS
        while time.monotonic() < deadline:
            self.check()
            try:
                if httpx.get(f"{self.url}/readyz", timeout=2).is_success:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        raise RuntimeError(f"The server at {self.url} was not ready within {_READY_SECONDS:.0f} seconds.")

    def check(self) -> None:
        """Raise RuntimeError when a process has ended."""
        for name, process in self.processes.items():
            if process.poll() is not None:
                raise RuntimeError(f"The {name} ended with exit code {process.returncode}; its log above says why.")


@contextmanager
def running_stack(
    host: str, port: int, data_dir: Path, model: str, log_level: str = "INFO", allow_anonymous: bool = False
) -> Iterator[Stack]:
    """Start everything; stop everything when the context ends, in the order that loses nothing.

    Raises:
        DataFolderInUse: when another stack runs on this folder.
        UnknownModel: before anything is started.
        ModuleNotFoundError: too, when a worker's packages are not installed.
        RuntimeError: when the port is taken or a part does not start.
    """
    find_model(model)
    require_worker_extra()
    _check_port(host, port)
    data_dir.mkdir(parents=True, exist_ok=True)
    lock = FileLock(data_dir / "up.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise DataFolderInUse(f"{data_dir} is in use by another `ripple up`; name a folder with --data-dir.") from None
    with lock, redis_url(data_dir) as url:
        environment = os.environ | {
            "REDIS_URL": url,
            "RIPPLE_DATA_DIR": str(data_dir),
            "RIPPLE_MODEL": model,
            "RIPPLE_HOST": host,
            "RIPPLE_PORT": str(port),
            "RIPPLE_ALLOW_ANONYMOUS": str(allow_anonymous),
            "RIPPLE_LOG_LEVEL": log_level,
        }
        stack = Stack(f"http://{_browsable(host)}:{port}", {})
        try:
            for index, name in enumerate(("server", "worker")):
                stack.processes[name] = start_module(name, environment | metrics_port(index))
            yield stack
        finally:
            _stop(stack.processes)


def start_module(name: str, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start `python -m name`, out of reach of the terminal's Ctrl-C: we stop it ourselves."""
    return subprocess.Popen([sys.executable, "-m", name], env=environment, start_new_session=True)


def metrics_port(index: int) -> dict[str, str]:
    """The setting for one of several processes of a machine: each has a port of its own, if any is wanted."""
    first = SharedSettings().metrics_port
    return {} if first is None else {"RIPPLE_METRICS_PORT": str(first + index)}


@contextmanager
def redis_url(data_dir: Path) -> Iterator[str]:
    """The Redis in REDIS_URL, or the embedded one of the folder for as long as the context lasts."""
    configured = SharedSettings().redis_url
    if configured:
        yield configured
        return
    redis = EmbeddedRedis(data_dir)
    redis.start()
    try:
        yield redis.url
    finally:
        redis.stop()


def _stop(processes: dict[str, subprocess.Popen[bytes]]) -> None:
    # Impatience must not leave processes behind; the wait below is bounded.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    for process in processes.values():
        process.terminate()
    deadline = time.monotonic() + _STOP_SECONDS
    for process in processes.values():
        try:
            process.wait(timeout=max(deadline - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _check_port(host: str, port: int) -> None:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise RuntimeError(f"Port {port} on {host} cannot be used ({error.strerror}); name another.") from None


def _browsable(host: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104


def free_port() -> int:
    """A TCP port on 127.0.0.1 that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
