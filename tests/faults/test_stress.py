"""Every fault again and again, with counts: `pytest tests/faults/test_stress.py -m slow`.

RIPPLE_STRESS_REPEATS says how often (20 by default). With RIPPLE_STRESS_RECORD the counts go into that JSON file, of
which worker/RELIABILITY.md shows the table.
"""

import json
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import pytest
from fleet import Fleet, Victim, temporary_fleet, until
from slow_proxy import SlowProxy

pytestmark = pytest.mark.slow

REPEATS = int(os.environ.get("RIPPLE_STRESS_REPEATS", "20"))
LONG = {"num_inference_steps": 40}
WHOM: dict[Victim, str] = {"engine": "the child", "worker": "the worker", "both": "both"}
Fault = Callable[[Fleet, str], None]


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    """Two workers to spare, so that killed ones start while others work."""
    with temporary_fleet(3, RIPPLE_STALL_SECONDS="5") as running:
        yield running


@pytest.fixture(scope="module")
def record() -> Iterator[dict[str, dict[str, object]]]:
    counts: dict[str, dict[str, object]] = {}
    yield counts
    if name := os.environ.get("RIPPLE_STRESS_RECORD"):
        path = Path(name)
        # Of tests that were run before.
        known = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps(known | counts, indent=2) + "\n")


def again_after_s(fleet: Fleet, job_id: str, fault_at: float) -> float | None:
    """Seconds from the fault to the next start of the job, None when it needed none."""
    entries = fleet.redis_client.xrange(f"ripple:job:{job_id}:events")
    states = [json.loads(fields[b"data"]) for _, fields in entries if fields[b"event"] == b"state"]
    starts = [datetime.fromisoformat(state["at"]).timestamp() for state in states if state["status"] == "running"]
    return next((start - fault_at for start in starts if start > fault_at), None)


def one_result_each(stage: str, seconds: list[float], times: int = REPEATS) -> dict[str, object]:
    """What is recorded once all times have had one result; the seconds are those to the next starts."""
    slowest = round(max(seconds), 2) if seconds else None
    return {"stage": stage, "times": times, "one_result": times, "slowest_next_start_s": slowest}


def restore(fleet: Fleet, num_workers: int = 3) -> threading.Thread:
    """Start what is missing of the workers while the test goes on."""
    thread = threading.Thread(target=fleet.restore, args=(num_workers,))
    thread.start()
    return thread


def repeat(
    fleet: Fleet, record: dict[str, dict[str, object]], name: str, stage: str, attempts: int, fault: Fault
) -> None:
    """The fault in this stage of a job, with others waiting; all must end well, each time."""
    seconds: list[float] = []
    num_workers = len(fleet.workers)
    for _ in range(REPEATS):
        if stage == "load":
            # They have it loaded from the time before.
            for worker in fleet.workers:
                worker.kill("engine")
        job_id = fleet.submit(**LONG)
        waiting = [fleet.submit() for _ in range(num_workers - 1)]
        assert fleet.wait_for_stage(job_id, stage, step=2 if stage == "denoise" else 0)
        fault_at = time.time()
        fault(fleet, job_id)
        restoring = restore(fleet, num_workers)
        fleet.check_one_result(job_id, attempts)
        for other in waiting:
            assert fleet.wait(other)["status"] == "succeeded"
        restoring.join()
        if (again := again_after_s(fleet, job_id, fault_at)) is not None:
            seconds.append(again)
    assert list(fleet.videos.glob(".*/*.mp4")) == []
    record[name] = one_result_each(stage, seconds)


@pytest.mark.parametrize("victim", ["engine", "worker", "both"])
@pytest.mark.parametrize("stage", ["denoise", "vae_decode", "mp4_encode"])
def test_kill(fleet: Fleet, record: dict[str, dict[str, object]], stage: str, victim: Victim) -> None:
    fleet.restore(3)
    name = f"kill -9 of {WHOM[victim]} in {stage}"
    repeat(fleet, record, name, stage, 2, lambda fleet, job_id: fleet.at_work(job_id).kill(victim))


@pytest.mark.parametrize("victim", ["engine", "worker", "both"])
def test_kill_in_load(start_fleet: Callable[..., Fleet], record: dict[str, dict[str, object]], victim: Victim) -> None:
    name = f"kill -9 of {WHOM[victim]} in load"
    repeat(start_fleet(2), record, name, "load", 2, lambda fleet, job_id: fleet.at_work(job_id).kill(victim))


@pytest.mark.parametrize("victim", ["worker", "both"])
def test_kill_in_store(
    start_fleet: Callable[..., Fleet],
    proxy: SlowProxy,
    s3_url: str,
    s3_endpoint: str,
    record: dict[str, dict[str, object]],
    victim: Victim,
) -> None:
    fleet, seconds = start_fleet(3, RIPPLE_STORE_URL=s3_url), list[float]()
    for _ in range(REPEATS):
        with fleet.storing_slowly(proxy) as job_id:
            fault_at = time.time()
            fleet.at_work(job_id).kill(victim)
        restoring = restore(fleet)
        fleet.check_one_result_in_s3(s3_url, s3_endpoint, job_id, attempts=2)
        again = again_after_s(fleet, job_id, fault_at)
        assert again is not None
        seconds.append(again)
        restoring.join()
    record[f"kill -9 of {WHOM[victim]} in store"] = one_result_each("store", seconds)


def test_kill_of_anything_at_any_time(fleet: Fleet, record: dict[str, dict[str, object]]) -> None:
    """Queued, claimed, in any stage, or just done; two jobs at a time."""
    chance, times = random.Random(7), 3 * REPEATS  # noqa: S311
    fleet.restore(3)
    started_twice = 0
    for _ in range(times):
        jobs = [fleet.submit(), fleet.submit()]
        time.sleep(chance.uniform(0, 3))
        chance.choice(fleet.workers).kill(chance.choice(["engine", "worker", "both"]))
        restoring = restore(fleet)
        for job_id in jobs:
            attempts = fleet.wait(job_id)["attempts"]
            assert attempts in (1, 2)
            started_twice += attempts == 2
            fleet.check_one_result(job_id, attempts)
        restoring.join()
    assert started_twice > 0
    record["kill -9 of anything at any time"] = one_result_each("any", [], times)


def restart_redis(fleet: Fleet, _: str) -> None:
    fleet.redis.stop()
    time.sleep(1)
    fleet.redis.start()


def kill_redis(fleet: Fleet, _: str) -> None:
    # What is younger than a second may not be on the disk yet.
    time.sleep(1.5)
    fleet.redis.stop(signal.SIGKILL)
    time.sleep(1)
    fleet.redis.start()


def silence_redis(fleet: Fleet, _: str) -> None:
    with fleet.redis.silent():
        time.sleep(6)


@pytest.mark.parametrize(
    ("how", "stage", "fault"),
    [
        ("stopped", "denoise", restart_redis),
        ("stopped", "vae_decode", restart_redis),
        ("stopped", "mp4_encode", restart_redis),
        ("killed", "denoise", kill_redis),
        ("silent for 6 s", "denoise", silence_redis),
    ],
)
def test_redis(fleet: Fleet, record: dict[str, dict[str, object]], how: str, stage: str, fault: Fault) -> None:
    fleet.restore(3)
    repeat(fleet, record, f"Redis {how} in {stage}", stage, 1, fault)


def test_redis_in_load(start_fleet: Callable[..., Fleet], record: dict[str, dict[str, object]]) -> None:
    repeat(start_fleet(2), record, "Redis stopped in load", "load", 1, restart_redis)


def test_redis_in_store(
    start_fleet: Callable[..., Fleet],
    proxy: SlowProxy,
    s3_url: str,
    s3_endpoint: str,
    record: dict[str, dict[str, object]],
) -> None:
    fleet = start_fleet(1, RIPPLE_STORE_URL=s3_url)
    for _ in range(REPEATS):
        with fleet.storing_slowly(proxy) as job_id:
            restart_redis(fleet, job_id)
        fleet.check_one_result_in_s3(s3_url, s3_endpoint, job_id)
    record["Redis stopped in store"] = one_result_each("store", [])


def test_hand_back(fleet: Fleet, record: dict[str, dict[str, object]]) -> None:
    def fault(fleet: Fleet, job_id: str) -> None:
        worker = fleet.at_work(job_id).process
        worker.terminate()
        worker.terminate()
        assert worker.wait(timeout=60) == 0

    fleet.restore(3)
    repeat(fleet, record, "SIGTERM twice in denoise", "denoise", 1, fault)


def test_cancel(fleet: Fleet, record: dict[str, dict[str, object]]) -> None:
    fleet.restore(3)
    for _ in range(REPEATS):
        job_id = fleet.submit(num_inference_steps=200)
        fleet.wait_for_stage(job_id, "denoise", step=2)
        fleet.client.delete(f"/jobs/{job_id}")
        assert fleet.wait(job_id)["status"] == "cancelled"
        assert fleet.attempts_kept(job_id) == []
        until(lambda: not any(told.jobs for told in fleet.workers_told()), "no worker is at it")
    record["cancelled in denoise"] = {"stage": "denoise", "times": REPEATS, "cancelled": REPEATS}


def test_hang(fleet: Fleet, record: dict[str, dict[str, object]]) -> None:
    fleet.restore(3)
    for _ in range(REPEATS):
        job_id = fleet.submit(num_inference_steps=200)
        fleet.wait_for_stage(job_id, "denoise", step=2)
        fleet.at_work(job_id).engine.suspend()
        job = fleet.wait(job_id)
        assert (job["status"], job["error"]["code"]) == ("failed", "stalled")
        assert fleet.wait(fleet.submit())["status"] == "succeeded"
    record["hang in denoise"] = {"stage": "denoise", "times": REPEATS, "reported": REPEATS}


def test_death_is_noticed_with_the_settings_of_production(record: dict[str, dict[str, object]]) -> None:
    seconds: list[float] = []
    usual = {"RIPPLE_HEARTBEAT_SECONDS": "2", "RIPPLE_LOST_AFTER_SECONDS": "10"}
    with temporary_fleet(2, **usual) as fleet:
        time.sleep(12)
        for _ in range(5):
            job_id = fleet.submit(num_inference_steps=200)
            fleet.wait_for_stage(job_id, "denoise", step=2)
            fault_at = time.time()
            fleet.at_work(job_id).kill("worker")
            fleet.check_one_result(job_id, 2)
            again = again_after_s(fleet, job_id, fault_at)
            assert again is not None
            seconds.append(again)
            fleet.restore(2)
            time.sleep(12)
    record["kill -9 of the worker, settings of production"] = one_result_each("denoise", seconds, times=5)
