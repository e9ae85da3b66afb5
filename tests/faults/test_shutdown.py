"""SIGTERM and cancellation: jobs finish or are handed back, and the device is free soon."""

import signal
from collections.abc import Callable

import pytest
from fleet import Fleet, until


def test_a_job_that_can_finish_in_time_does(start_fleet: Callable[..., Fleet]) -> None:
    fleet = start_fleet(1, RIPPLE_DRAIN_SECONDS="120")
    job_id, queued = fleet.submit(num_inference_steps=40), fleet.submit()
    fleet.wait_for_stage(job_id, "denoise", step=2)
    worker = fleet.workers[0].process
    worker.terminate()
    # Not ready first, while the job goes on.
    until(lambda: fleet.get("/readyz") == 503, "the API is not ready")
    assert worker.poll() is None
    fleet.check_one_result(job_id)
    assert worker.wait(timeout=60) == 0
    job = fleet.job(queued)
    assert (job["status"], job["attempts"]) == ("queued", 0)


def test_a_job_that_cannot_finish_in_time_is_handed_back_uncounted(start_fleet: Callable[..., Fleet]) -> None:
    fleet = start_fleet(1, RIPPLE_DRAIN_SECONDS="2")
    job_id = fleet.submit(num_inference_steps=200)
    fleet.wait_for_stage(job_id, "denoise", step=2)
    assert _stop(fleet) == 0
    job = fleet.job(job_id)
    assert (job["status"], job["attempts"], job["last_failure"]) == ("queued", 0, None)
    fleet.start_worker()
    fleet.check_one_result(job_id)
    assert fleet.statuses(job_id) == ["queued", "running", "queued", "running", "succeeded"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_twice_means_now(start_fleet: Callable[..., Fleet], number: int) -> None:
    fleet = start_fleet(1, RIPPLE_DRAIN_SECONDS="600")
    job_id = fleet.submit(num_inference_steps=200)
    fleet.wait_for_stage(job_id, "denoise", step=2)
    worker = fleet.workers[0].process
    worker.send_signal(number)
    until(lambda: fleet.get("/readyz") == 503, "the API is not ready")
    assert worker.poll() is None
    worker.send_signal(number)
    assert worker.wait(timeout=30) == 0
    assert fleet.job(job_id)["status"] == "queued"
    assert fleet.attempts_kept(job_id) == []
    assert list(fleet.videos.glob(".*")) == [], "no temporary folder"


@pytest.mark.parametrize("stage", ["load", "denoise", "vae_decode", "mp4_encode"])
def test_a_job_is_cancelled_in_every_stage_and_the_next_one_runs(fleet: Fleet, stage: str) -> None:
    fleet.restore(1)
    if stage == "load":
        for worker in fleet.workers:
            worker.kill("engine")
    job_id = fleet.submit(num_inference_steps=60, output={"format": "gif"})
    fleet.wait_for_stage(job_id, stage)
    assert fleet.client.delete(f"/jobs/{job_id}").status_code == 202
    job = fleet.wait(job_id)
    # What was asked too late has succeeded.
    assert job["status"] == "cancelled" or stage in ("vae_decode", "mp4_encode")
    until(lambda: not any(told.jobs for told in fleet.workers_told()), "no worker is at it")
    if job["status"] == "cancelled":
        assert fleet.attempts_kept(job_id) == []
        assert job["progress"]["step"] < 60 or stage in ("vae_decode", "mp4_encode")
    fleet.check_one_result(fleet.submit())


def test_without_redis_a_worker_does_not_wait_for_ever(start_fleet: Callable[..., Fleet]) -> None:
    fleet = start_fleet(1, RIPPLE_DRAIN_SECONDS="1")
    job_id = fleet.submit(num_inference_steps=200)
    fleet.wait_for_stage(job_id, "denoise", step=2)
    fleet.redis.stop()
    assert _stop(fleet) == 0
    fleet.redis.start()
    fleet.start_worker()
    fleet.check_one_result(job_id, attempts=2)


def _stop(fleet: Fleet) -> int:
    fleet.workers[0].process.terminate()
    return fleet.workers[0].process.wait(timeout=120)
