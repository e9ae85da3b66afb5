"""Jobs that share a run: each has its own progress, end and fate."""

from collections.abc import Callable
from pathlib import Path

import pytest
from fleet import Fleet, until

MODELS = """
[[models]]
source = "builtin"
max_batch = 3
"""


@pytest.fixture
def fleet(start_fleet: Callable[..., Fleet], tmp_path: Path) -> Fleet:
    """Without a worker, so that jobs can gather."""
    models_file = tmp_path / "models.toml"
    models_file.write_text(MODELS)
    return start_fleet(0, RIPPLE_MODELS_FILE=str(models_file))


def batch_size(fleet: Fleet, job_id: str) -> int:
    return int(fleet.job(job_id)["metrics"]["batch_size"])


def test_compatible_jobs_run_as_one_and_end_as_many(fleet: Fleet) -> None:
    alike = [
        fleet.submit(prompt=f"a {colour} circle", seed=seed) for seed, colour in enumerate(("red", "blue", "green"))
    ]
    other = fleet.submit(width=48)
    late = fleet.submit()
    fleet.start_worker()
    for job_id in (*alike, other, late):
        fleet.check_one_result(job_id)
    assert [batch_size(fleet, job_id) for job_id in (*alike, other, late)] == [3, 3, 3, 1, 1]
    assert len({fleet.job(job_id)["metrics"]["output"]["sha256"] for job_id in alike}) == 3
    assert fleet.redis_client.llen("rq:queue:ripple-normal:timeripple/builtin") == 0, "no message is left over"


def test_one_of_them_is_cancelled_at_once_and_the_others_go_on(fleet: Fleet) -> None:
    first, second, third = (fleet.submit(num_inference_steps=100, seed=seed) for seed in range(3))
    fleet.start_worker()
    fleet.wait_for_stage(second, "denoise", step=2)
    fleet.client.delete(f"/jobs/{second}")
    assert fleet.wait(second)["status"] == "cancelled"
    assert fleet.job(first)["status"] == "running"
    for job_id in (first, third):
        fleet.check_one_result(job_id)


def test_after_a_crash_each_runs_alone(fleet: Fleet) -> None:
    jobs = [fleet.submit(num_inference_steps=60, seed=seed) for seed in range(3)]
    worker = fleet.start_worker()
    fleet.wait_for_stage(jobs[2], "denoise", step=2)
    worker.kill("engine")
    for job_id in jobs:
        fleet.check_one_result(job_id, attempts=2)
    assert [batch_size(fleet, job_id) for job_id in jobs] == [1, 1, 1]
    until(lambda: not any(told.jobs for told in fleet.workers_told()), "the worker is idle")
