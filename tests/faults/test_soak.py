"""Hundreds of jobs through one worker: `pytest tests/faults/test_soak.py -m slow -s`.

With RIPPLE_SOAK_RECORD the figures go into that JSON file.
"""

import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
from fleet import Fleet, until

pytestmark = pytest.mark.slow

NUM_JOBS = 500
# Memory settles at first: code is loaded, allocators grow.
SETTLED = 150
MOST_MB_PER_JOB = 0.1
TINY = {"height": 32, "width": 32, "num_frames": 5, "num_inference_steps": 2}


def memory_mb(processes: dict[str, psutil.Process]) -> dict[str, float]:
    return {name: process.memory_info().rss / 1e6 for name, process in processes.items()}


def test_hundreds_of_jobs_leave_nothing_behind(start_fleet: Callable[..., Fleet], tmp_path: Path) -> None:
    loras = tmp_path / "loras"
    loras.mkdir()
    (loras / "broken.safetensors").write_bytes(b"not what it says")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    fleet = start_fleet(1, RIPPLE_LORA_DIR=str(loras), RIPPLE_MAX_QUEUED_JOBS="5000", TMPDIR=str(temporary))
    fleet.check_one_result(fleet.submit(**TINY))
    worker = fleet.workers[0]
    processes = {"worker": psutil.Process(worker.process.pid), "engine": worker.engine}
    family = {process.pid for process in worker.family()}
    files = set(temporary.rglob("*"))
    ends, memory = Counter(), {name: [] for name in processes}  # type: Counter[str], dict[str, list[float]]
    for number in range(NUM_JOBS):
        kind = "cancel" if number % 10 == 9 else "fail" if number % 25 == 12 else "finish"
        fields = {"cancel": {"num_inference_steps": 100}, "fail": {"loras": [{"name": "broken"}]}, "finish": {}}[kind]
        job_id = fleet.submit(**TINY | fields)
        if kind == "cancel":
            fleet.wait_for_stage(job_id, "denoise", step=1)
            fleet.client.delete(f"/jobs/{job_id}")
        ends[fleet.wait(job_id)["status"]] += 1
        for name, mb in memory_mb(processes).items():
            memory[name].append(mb)
    until(lambda: not any(told.jobs for told in fleet.workers_told()), "the worker is idle")
    slopes = {
        name: float(np.polyfit(range(NUM_JOBS - SETTLED), taken[SETTLED:], 1)[0]) for name, taken in memory.items()
    }
    figures = {
        "jobs": NUM_JOBS,
        "ends": dict(ends),
        "mb_per_job": {name: round(slope, 4) for name, slope in slopes.items()},
        "mb_at_end": {name: round(taken[-1]) for name, taken in memory.items()},
    }
    print(json.dumps(figures))  # noqa: T201
    if path := os.environ.get("RIPPLE_SOAK_RECORD"):
        Path(path).write_text(json.dumps(figures, indent=2) + "\n")
    assert ends["succeeded"] + ends["failed"] + ends["cancelled"] == NUM_JOBS
    assert ends["failed"] == NUM_JOBS // 25
    assert {process.pid for process in worker.family()} == family, "no orphan, no engine that had to be replaced"
    assert list(fleet.videos.glob(".*")) == []
    assert set(temporary.rglob("*")) == files
    assert max(slopes.values()) < MOST_MB_PER_JOB, slopes
