"""kill -9 of the processes that run a job, in each of its stages: it runs again, once, and nothing is left over."""

import time
from collections.abc import Callable

import pytest
from fleet import Fleet, Victim, until

# Long enough in each stage to be met there.
LONG = {"num_inference_steps": 60}


QUICK = {("load", "engine"), ("denoise", "worker"), ("vae_decode", "engine"), ("mp4_encode", "both")}
KILLS = [
    pytest.param(stage, victim, id=f"{victim} in {stage}", marks=() if (stage, victim) in QUICK else pytest.mark.slow)
    for stage in ("load", "denoise", "vae_decode", "mp4_encode")
    for victim in ("engine", "worker", "both")
]


@pytest.mark.parametrize(("stage", "victim"), KILLS)
def test_a_job_whose_process_is_killed_runs_again(fleet: Fleet, stage: str, victim: Victim) -> None:
    fleet.restore(2)
    if stage == "load":
        for worker in fleet.workers:
            worker.kill("engine")
    job_id = fleet.submit(**LONG)
    assert fleet.wait_for_stage(job_id, stage, step=3 if stage == "denoise" else 0)
    fleet.at_work(job_id).kill(victim)
    fleet.check_one_result(job_id, attempts=2)


def test_a_queued_job_outlives_all_workers(start_fleet: Callable[..., Fleet]) -> None:
    fleet = start_fleet(1)
    running, queued = fleet.submit(**LONG), fleet.submit()
    fleet.wait_for_stage(running, "denoise")
    fleet.workers[0].kill("both")
    assert fleet.job(queued)["status"] == "queued"
    until(lambda: fleet.get("/readyz") == 503, "the API is not ready without workers")
    fleet.start_worker()
    fleet.check_one_result(running, attempts=2)
    fleet.check_one_result(queued, attempts=1)


def test_a_message_that_a_worker_took_to_its_grave_is_sent_again(start_fleet: Callable[..., Fleet]) -> None:
    fleet = start_fleet(0)
    job_id = fleet.submit()
    # What is left when a worker dies between taking the message and claiming the job.
    assert fleet.redis_client.lpop("rq:queue:ripple-normal:timeripple/builtin")
    fleet.start_worker()
    fleet.check_one_result(job_id, attempts=1)


def test_a_job_that_kills_its_process_every_time_fails_and_the_queue_goes_on(
    start_fleet: Callable[..., Fleet],
) -> None:
    fleet = start_fleet(1, RIPPLE_MAX_ATTEMPTS="2")
    poison, healthy = fleet.submit(**LONG), fleet.submit()
    for attempt in (1, 2):
        until(lambda: fleet.job(poison)["attempts"] == attempt, f"attempt {attempt}")  # noqa: B023
        until(lambda: fleet.job(poison)["progress"]["step"] > 0, "the attempt has begun")
        fleet.workers[0].kill("engine")
        until(lambda: fleet.job(poison)["progress"]["step"] == 0 or fleet.job(poison)["error"], "the death is noticed")
    job = fleet.wait(poison)
    assert (job["status"], job["error"]["code"], job["attempts"]) == ("failed", "worker_lost", 2)
    assert "exit code -9" in job["error"]["message"]
    assert "attempt 2 of 2" in job["error"]["message"]
    assert fleet.attempts_kept(poison) == []
    fleet.check_one_result(healthy, attempts=1)


def test_a_worker_taken_for_dead_cannot_replace_the_result(start_fleet: Callable[..., Fleet]) -> None:
    """It is stopped in the middle, its job done by another, and then it wakes up and goes on."""
    fleet = start_fleet(2)
    job_id = fleet.submit(**LONG)
    fleet.wait_for_stage(job_id, "denoise", step=3)
    sleeper = fleet.at_work(job_id)
    family = sleeper.family()
    for process in family:
        process.suspend()
    fleet.check_one_result(job_id, attempts=2)
    before = fleet.job(job_id)
    for process in family:
        process.resume()
    until(lambda: sleeper.process.pid in {told.pid for told in fleet.workers_told()}, "the sleeper is back")
    until(lambda: not any(told.jobs for told in fleet.workers_told()), "it has given the job up")
    time.sleep(0.5)
    assert fleet.job(job_id) == before
    fleet.check_one_result(job_id, attempts=2)
