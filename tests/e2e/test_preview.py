"""Watching a job while it runs: from the decoder in the worker's child to a client of the API."""

import io
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from fleet import SMALL, Fleet, temporary_fleet
from PIL import Image
from timeripple_client import Client, TimeRippleError

MODELS = """
[[models]]
source = "builtin"
max_batch = 2
"""
SLOW = SMALL | {"num_inference_steps": 24, "width": 64, "height": 64}


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    """Without a worker, so that jobs can gather."""
    with temporary_fleet(0, MODELS) as fleet:
        yield fleet


@pytest.fixture
def client(fleet: Fleet) -> Iterator[Client]:
    with Client(f"http://127.0.0.1:{fleet.port}") as client:
        yield client


def watch(client: Client, job_id: str) -> tuple[list[int], list[bytes]]:
    """Steps of all previews that the job's events tell of, and those that were there still when asked for."""
    steps: list[int] = []
    seen: list[bytes] = []
    for event in client.events(job_id):
        if event.name == "preview":
            steps.append(event.data["step"])
            # The job may have been faster.
            with suppress(TimeRippleError):
                seen.append(client.preview(job_id))
    return steps, seen


def test_a_batch_is_watched_where_that_was_asked_for_and_previews_go_at_the_end(fleet: Fleet, client: Client) -> None:
    watched, other = fleet.submit(**SLOW | {"preview": True}), fleet.submit(**SLOW | {"seed": 2})
    fleet.start_worker(OMP_NUM_THREADS="1")
    steps, seen = watch(client, watched)
    assert steps == [3, 6, 9, 12, 15, 18, 21]
    assert seen
    with Image.open(io.BytesIO(seen[0])) as image:
        assert (image.format, image.size, image.n_frames) == ("WEBP", (32, 32), SMALL["num_frames"])
    assert watch(client, other) == ([], [])
    for job_id, said in ((watched, "has ended"), (other, "did not ask")):
        job = fleet.wait(job_id)
        assert (job["status"], job["metrics"]["batch_size"]) == ("succeeded", 2)
        with pytest.raises(TimeRippleError, match=said) as refused:
            client.preview(job_id)
        assert (refused.value.status, refused.value.code) == (404, "no_preview")
    assert fleet.job(watched)["metrics"]["latency_s"]["preview"] > 0
    assert fleet.redis_client.keys("ripple:job:*:preview") == []


def test_waiting_clients_and_openai_ones_take_no_notice(fleet: Fleet, client: Client) -> None:
    seen: list[Any] = []
    job = client.generate(**SMALL, preview=True)
    ended = client.wait(job, on_progress=seen.append)
    assert ended.status == "succeeded"
    assert seen
    answer = fleet.client.post("/v1/videos", json={"prompt": "a red circle", "size": "32x32", "preview": True})
    assert fleet.job(answer.json()["id"])["request"]["preview"]
    assert fleet.wait(answer.json()["id"])["status"] == "succeeded"
