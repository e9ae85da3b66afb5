"""`ripple worker`: a worker process for each device."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from ripple_core.cli.errors import require_worker_extra
from ripple_core.cli.stack import metrics_port, redis_url, start_module

ALL_DEVICES = "all"
_POLL_SECONDS = 0.1


def run_workers(data_dir: Path, settings: dict[str, str], devices: Sequence[str]) -> int:
    """Run one worker on each device until all have ended.

    SIGTERM and Ctrl-C are passed on to every worker each time: the first asks it to drain, the second to end now. A
    worker that ends by itself leaves the others at work.

    Args:
        data_dir: with the embedded Redis, where REDIS_URL names no other.
        settings: environment variables beside ours.
        devices: torch devices, or "all" for every CUDA device.

    Returns:
        0, or the exit code of the first worker in order of devices that failed.

    Raises:
        RuntimeError: when "all" finds no device.
        ModuleNotFoundError: when a worker's packages are not installed.
    """
    require_worker_extra()
    asked: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: asked.append(1))
    with redis_url(data_dir) as url:
        environment = os.environ | settings | {"REDIS_URL": url, "RIPPLE_DATA_DIR": str(data_dir)}
        workers = {
            f"worker {index + 1} on {device}": start_module(
                "worker", environment | {"RIPPLE_DEVICE": device} | metrics_port(index)
            )
            for index, device in enumerate(_named(devices))
        }
        _wait(workers, asked)
    codes = [worker.returncode for worker in workers.values() if worker.returncode]
    # As shells show the end by a signal.
    return next((code if code > 0 else 128 - code for code in codes), 0)


def _wait(workers: dict[str, subprocess.Popen[bytes]], asked: list[int]) -> None:
    living, passed_on = dict(workers), 0
    while living:
        # Not in the signals' handler, which may run while workers are being started.
        if len(asked) > passed_on:
            passed_on += 1
            for worker in living.values():
                worker.terminate()
        for name, worker in list(living.items()):
            if worker.poll() is None:
                continue
            del living[name]
            if worker.returncode and len(workers) > 1:
                sys.stderr.write(f"{name} ended with exit code {worker.returncode}; its log above says why\n")
        time.sleep(_POLL_SECONDS)


def _named(devices: Sequence[str]) -> list[str]:
    """Every device by its own name."""
    if ALL_DEVICES not in devices:
        return list(devices)
    import torch

    count = torch.cuda.device_count()
    if count == 0:
        raise RuntimeError("--device all: there is no CUDA device here; name devices, such as --device cpu")
    return [f"cuda:{index}" for index in range(count)]
