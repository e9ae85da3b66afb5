"""Redis stops, dies or falls silent in each stage of a job: nothing is lost, nothing is done twice."""

import signal
import threading
from collections.abc import Callable

import httpx
import pytest
from fleet import Fleet, until

LONG = {"num_inference_steps": 60}


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
@pytest.mark.parametrize("stage", ["load", "denoise", pytest.param("mp4_encode", marks=pytest.mark.slow)])
def test_redis_is_restarted_in_the_middle_of_a_job(fleet: Fleet, stage: str, how: int) -> None:
    """Both workers live on, so the job needs no second attempt."""
    if stage == "load":
        for worker in fleet.workers:
            worker.kill("engine")
    job_id, queued = fleet.submit(**LONG), fleet.submit()
    assert fleet.wait_for_stage(job_id, stage)
    # The append-only file is synced every second: what is younger may go when Redis is killed.
    until(lambda: fleet.redis_client.info("persistence")["aof_pending_bio_fsync"] == 0, "the file is synced")
    fleet.redis.stop(how)
    assert fleet.get(f"/jobs/{job_id}") == 503
    fleet.redis.start()
    fleet.check_one_result(job_id)
    fleet.check_one_result(queued)


def test_a_job_that_ends_while_redis_is_away_is_recorded_when_it_is_back(fleet: Fleet) -> None:
    job_id = fleet.submit(**LONG)
    fleet.wait_for_stage(job_id, "denoise", step=1)
    fleet.redis.stop()
    # Nobody can be asked; the files show that the worker is done.
    partial = [path for path in fleet.videos.glob(".*") if path.is_dir()]
    until(lambda: any(list(path.glob("spritesheet*")) for path in partial), "the files are written")
    assert fleet.attempts_kept(job_id) == [], "without Redis nobody knows whose the job is"
    fleet.redis.start()
    fleet.check_one_result(job_id)


@pytest.mark.parametrize("seconds", [6, pytest.param(30, marks=pytest.mark.slow)])
def test_redis_falls_silent_for_longer_than_a_worker_may(fleet: Fleet, seconds: int) -> None:
    """The API answers 503 meanwhile and goes on by itself; the job is not taken for lost."""
    job_id = fleet.submit(num_inference_steps=100)
    fleet.wait_for_stage(job_id, "denoise", step=1)
    answers: list[int] = []
    with fleet.redis.silent():
        over = threading.Event()
        threading.Timer(seconds, over.set).start()
        while not over.is_set():
            answers.append(fleet.client.get(f"/jobs/{job_id}", timeout=60).status_code)
            assert fleet.client.get("/healthz").status_code == 200
    assert set(answers) == {503}
    until(lambda: fleet.get(f"/jobs/{job_id}") == 200, "the API has found Redis again")
    fleet.check_one_result(job_id)


def test_submissions_during_an_outage_are_refused_whole(fleet: Fleet) -> None:
    fleet.redis.stop()
    answer = fleet.client.post("/generate", json={"prompt": "a red circle"})
    assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
    assert "retry-after" in answer.headers
    assert "Traceback" not in answer.text
    fleet.redis.start()
    assert fleet.client.get("/jobs", params={"status": "queued"}).json()["jobs"] == []
    fleet.check_one_result(fleet.submit())


def test_event_streams_resume_after_the_api_was_killed(start_fleet: Callable[..., Fleet]) -> None:
    fleet = start_fleet(1)
    job_id = fleet.submit(num_inference_steps=100)
    fleet.wait_for_stage(job_id, "denoise", step=1)
    seen, last = [], ""
    with fleet.client.stream("GET", f"/jobs/{job_id}/events") as answer:
        for line in answer.iter_lines():
            if line.startswith("id: "):
                last = line.removeprefix("id: ")
                seen.append(last)
            if len(seen) == 4:
                break
    assert fleet.api is not None
    fleet.api.kill()
    fleet.api.wait()
    fleet.start_api()
    with (
        httpx.Client(base_url=fleet.client.base_url, timeout=120) as client,
        client.stream("GET", f"/jobs/{job_id}/events", headers={"Last-Event-ID": last}) as answer,
    ):
        seen += [line.removeprefix("id: ") for line in answer.iter_lines() if line.startswith("id: ")]
    stored = [entry.decode() for entry, _ in fleet.redis_client.xrange(f"ripple:job:{job_id}:events")]
    assert seen == stored
    fleet.check_one_result(job_id)
