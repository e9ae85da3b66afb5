"""Server-sent events of a job."""

import json
import threading
import time
from typing import Any

import pytest

from ripple_core.contract.job import JobError, Progress


def read_events(api: Any, job_id: str, last_event_id: str | None = None) -> list[dict[str, str]]:
    """All events until the server ends the stream."""
    headers = {"Last-Event-ID": last_event_id} if last_event_id else {}
    events: list[dict[str, str]] = []
    with api.client.stream("GET", f"/jobs/{job_id}/events", headers=headers) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-store"
        for block in "".join(answer.iter_text()).split("\n\n"):
            if block and not block.startswith(":"):
                events.append(dict(line.split(": ", 1) for line in block.split("\n")))
    return events


def run_to_failure(api: Any, job_id: str, pause: float = 0.0) -> None:
    owner = api.claim(job_id)
    for step in range(3):
        time.sleep(pause)
        api.store.set_progress(job_id, owner, Progress(stage="denoise", step=step, total_steps=3))
    api.store.fail(job_id, owner, JobError(code="generation_failed", message="x"))


def test_events_arrive_live_in_order_and_end_with_the_terminal_state(api: Any) -> None:
    job_id = api.submit()
    worker = threading.Thread(target=run_to_failure, args=(api, job_id, 0.1))
    worker.start()
    events = read_events(api, job_id)
    worker.join()
    assert [event["event"] for event in events] == ["state", "state", *["progress"] * 3, "state"]
    states = [json.loads(event["data"]) for event in events if event["event"] == "state"]
    assert [state["status"] for state in states] == ["queued", "running", "failed"]
    assert states[-1]["error"] == {"code": "generation_failed", "message": "x"}
    assert [json.loads(event["data"])["step"] for event in events if event["event"] == "progress"] == [0, 1, 2]


def test_a_reader_resumes_after_the_last_event_it_saw(api: Any) -> None:
    job_id = api.submit()
    run_to_failure(api, job_id)
    events = read_events(api, job_id)
    for seen in range(1, len(events)):
        assert read_events(api, job_id, events[seen - 1]["id"]) == events[seen:]


def test_nothing_follows_the_end(api: Any) -> None:
    job_id = api.submit()
    run_to_failure(api, job_id)
    last = read_events(api, job_id)[-1]["id"]
    answer = api.client.get(f"/jobs/{job_id}/events", headers={"Last-Event-ID": last})
    assert (answer.status_code, answer.content) == (204, b"")


@pytest.mark.parametrize("event_id", ["x", "1", "-", "1-2-3", "9" * 30 + "-0"])
def test_an_event_id_that_is_none_is_refused(api: Any, event_id: str) -> None:
    answer = api.client.get(f"/jobs/{api.submit()}/events", headers={"Last-Event-ID": event_id})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "last-event-id"


def test_a_stream_outlives_silence(api: Any) -> None:
    """Loading a large model takes minutes without any event."""
    job_id = api.submit()
    worker = threading.Thread(target=run_to_failure, args=(api, job_id, 4.5))
    worker.start()
    events = read_events(api, job_id)
    worker.join()
    assert json.loads(events[-1]["data"])["status"] == "failed"


def test_many_readers_do_not_block_the_api(api: Any) -> None:
    """More open streams than the server has threads for synchronous routes, or a pool of redis-py connections."""
    job_id = api.submit()
    short: list[int] = []

    def read() -> None:
        if len(read_events(api, job_id)) != 6:
            short.append(1)

    readers = [threading.Thread(target=read) for _ in range(150)]
    for reader in readers:
        reader.start()
    time.sleep(0.5)
    assert api.client.get("/healthz", timeout=5).status_code == 200
    assert api.client.get(f"/jobs/{job_id}", timeout=5).status_code == 200
    run_to_failure(api, job_id)
    for reader in readers:
        reader.join(timeout=10)
        assert not reader.is_alive()
    assert not short, "a stream ended before its job did"


def test_readers_that_leave_do_not_disturb_the_next(api: Any) -> None:
    job_id = api.submit()
    for _ in range(20):
        with api.client.stream("GET", f"/jobs/{job_id}/events") as answer:
            next(answer.iter_text())
    run_to_failure(api, job_id)
    assert [event["event"] for event in read_events(api, job_id)] == ["state", "state", *["progress"] * 3, "state"]


def test_a_reader_from_the_future_is_let_go_when_the_job_ends(api: Any) -> None:
    """No event ever follows such an id, so the stream must end by itself."""
    job_id = api.submit()
    worker = threading.Timer(0.2, run_to_failure, args=(api, job_id))
    worker.start()
    assert read_events(api, job_id, f"{'9' * 18}-0") == []
    worker.join()
