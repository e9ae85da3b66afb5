"""The fleet at a glance, and the image a job began from."""

from datetime import timedelta
from typing import Any

import pytest
from samples import METRICS, worker_info

from ripple_core.contract.job import utc_now


def test_before_anything_has_happened_nothing_is_claimed(api: Any) -> None:
    system = api.client.get("/system").json()
    assert system["workers"] == []
    assert system["queue"] == {"num_queued": 0, "num_running": 0, "work_s": 0, "wait_s": None}
    assert system["today"]["day"] == utc_now().date().isoformat()
    assert system["today"]["savings"] is None
    assert system["dashboards_url"] is None


def test_today_counts_what_ended_even_if_it_was_deleted(api: Any) -> None:
    for _ in range(2):
        api.finish(done := api.submit())
    api.client.delete(f"/jobs/{done}")
    api.fail(api.submit())
    api.client.delete(f"/jobs/{api.submit()}")
    today = api.client.get("/system").json()["today"]
    assert (today["num_succeeded"], today["num_failed"], today["num_cancelled"]) == (2, 1, 1)
    attention = METRICS.attention
    assert today["attention_dense_flops"] == 2 * attention.dense_flops
    assert today["attention_executed_flops"] == 2 * attention.executed_flops
    assert today["savings"] == pytest.approx(attention.savings)
    assert today["denoise_s"] == pytest.approx(2 * METRICS.latency_s.denoise)


def test_queue_and_workers_are_shown_without_whose_jobs_they_are(api: Any) -> None:
    api.claim(running := api.submit())
    queued = api.submit()
    api.store.beat(worker_info("w", "busy", loaded=("m",), jobs=(running,)), timedelta(seconds=30))
    answer = api.client.get("/system")
    system = answer.json()
    assert (system["queue"]["num_queued"], system["queue"]["num_running"]) == (1, 1)
    (worker,) = system["workers"]
    assert (worker["name"], worker["state"], worker["loaded"], worker["num_jobs"]) == ("w", "busy", ["m"], 1)
    assert running not in answer.text
    assert queued not in answer.text


def test_the_operators_dashboards_are_linked(redis_server: Any, start_api: Any, tmp_path: Any) -> None:
    url = "http://127.0.0.1:3000/dashboards"
    with start_api(redis_server.url, tmp_path, {"RIPPLE_DASHBOARDS_URL": url}) as api:
        assert api.client.get("/system").json()["dashboards_url"] == url


def test_a_job_without_an_image_says_so(api: Any) -> None:
    answer = api.client.get(f"/jobs/{api.submit()}/image")
    assert (answer.status_code, answer.json()["code"]) == (404, "no_image")
