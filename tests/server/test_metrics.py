"""What Prometheus reads from the API: exact counters of the job store, queues, workers and this process."""

from datetime import timedelta
from pathlib import Path
from typing import Any

from samples import METRICS, worker_info
from scraped import Scrape

from ripple_core.contract.job import JobError

MODEL = "timeripple/builtin"


def scrape(api: Any) -> Scrape:
    return Scrape(api.client.get("/metrics").raise_for_status().text)


def ended(scraped: Scrape, **labels: str) -> float:
    return sum(scraped.values("timeripple_jobs_ended_total", model=MODEL, **labels))


def test_every_end_is_counted_with_its_model_and_cause(api: Any) -> None:
    api.finish(api.submit())
    api.fail(api.submit())
    api.client.delete(f"/jobs/{api.submit()}")
    scraped = scrape(api)
    for labels in ({"status": "succeeded"}, {"error_code": "out_of_memory"}, {"status": "cancelled"}):
        assert ended(scraped, **labels) == 1
    assert ended(scraped) == 3


def test_counters_begin_at_zero_so_that_the_first_job_is_growth(own_redis: Any, start_api: Any, tmp_path: Path) -> None:
    with start_api(own_redis.url, tmp_path) as api:
        scraped = scrape(api)
        assert scraped.value("timeripple_jobs_ended_total", model=MODEL, error_code="stalled") == 0
        assert len(scraped.values("timeripple_attention_dense_flops_total", model=MODEL)) == 5
        assert scraped.values("timeripple_attention_fallback_calls_total") == []


def test_flops_are_summed_by_the_dial(api: Any) -> None:
    names = {"dense": METRICS.attention.dense_flops, "executed": METRICS.attention.executed_flops}
    for _ in range(2):
        api.finish(api.submit())
    scraped = scrape(api)
    for kind, flops in names.items():
        name = f"timeripple_attention_{kind}_flops_total"
        assert scraped.value(name, model=MODEL, aggressiveness="0.5") == 2 * flops
        assert sum(scraped.values(name)) == 2 * flops


def test_an_estimate_counts_with_the_time_of_the_same_jobs_only(api: Any) -> None:
    names = [f"timeripple_{name}_seconds_total" for name in ("denoise", "estimated_denoise", "dense_denoise_estimate")]
    for estimate in (None, 3.0):
        job_id = api.submit()
        metrics = METRICS.model_copy(update={"dense_denoise_estimate_s": estimate})
        assert api.store.succeed(job_id, api.claim(job_id), metrics, 30)
    scraped = scrape(api)
    assert [sum(scraped.values(name)) for name in names] == [
        2 * METRICS.latency_s.denoise,
        METRICS.latency_s.denoise,
        3.0,
    ]


def test_an_attempt_that_was_lost_is_counted_beside_the_ends(api: Any) -> None:
    job_id = api.submit()
    assert api.store.return_to_queue(job_id, api.claim(job_id), JobError(code="worker_lost", message="gone"))
    scraped = scrape(api)
    assert scraped.value("timeripple_attempts_failed_total", error_code="worker_lost") == 1
    assert ended(scraped) == 0


def test_queues_by_model_and_priority(own_redis: Any, start_api: Any, tmp_path: Path) -> None:
    with start_api(own_redis.url, tmp_path) as api:
        api.submit()
        api.submit(priority="high")
        scraped = scrape(api)
        assert scraped.value("timeripple_queued_jobs") == 2
        waiting = {p: scraped.value("timeripple_queue_messages", priority=p) for p in ("high", "normal", "low")}
        assert waiting == {"high": 1, "normal": 1, "low": 0}
        age = "timeripple_queue_oldest_age_seconds"
        assert 0 < scraped.value(age, priority="high") < 600
        assert scraped.value(age, priority="low") == 0
        assert scraped.value("timeripple_jobs", status="queued") == 2


def test_workers_by_state_and_by_model(own_redis: Any, start_api: Any, tmp_path: Path) -> None:
    with start_api(own_redis.url, tmp_path) as api:
        for name, state in (("a", "idle"), ("b", "busy"), ("c", "draining")):
            api.store.beat(worker_info(name, state, models=(MODEL,), loaded=(MODEL,)), timedelta(seconds=30))
        scraped = scrape(api)
        assert {s: scraped.value("timeripple_workers", state=s) for s in ("starting", "idle", "busy", "draining")} == {
            "starting": 0,
            "idle": 1,
            "busy": 1,
            "draining": 1,
        }
        assert scraped.value("timeripple_model_workers", model=MODEL) == 2
        assert scraped.value("timeripple_model_loaded_workers", model=MODEL) == 3


def test_the_process_tells_what_it_is(api: Any) -> None:
    scraped = scrape(api)
    assert scraped.value("timeripple_build_info", timeripple="0.1.0") == 1
    assert scraped.value("timeripple_server_process_resident_memory_bytes") > 1e7
    assert 0 < scraped.value("timeripple_data_free_bytes") < scraped.value("timeripple_data_size_bytes")
    assert scraped.value("timeripple_redis_up") == 1


def test_no_metric_is_labelled_with_a_job(api: Any) -> None:
    job_id = api.submit()
    api.client.get(f"/jobs/{job_id}")
    api.client.request("MADEUP", f"/jobs/{job_id}")
    text = api.client.get("/metrics").text
    assert job_id not in text
    assert "MADEUP" not in text
    assert Scrape(text).values("timeripple_http_requests_total", method="POST", route="/generate")


def test_a_port_of_its_own_needs_no_key(own_redis: Any, start_api: Any, tmp_path: Path, unused_port: int) -> None:
    settings = {"RIPPLE_METRICS_PORT": str(unused_port)}
    with start_api(own_redis.url, tmp_path, settings) as api:
        api.submit()
        text = api.client.get(f"http://127.0.0.1:{unused_port}/metrics").text
        assert Scrape(text).value("timeripple_queued_jobs") == 1


def test_what_another_version_counts_does_not_break_a_scrape(api: Any) -> None:
    fields = ['m\t["new_counter", {}]', 'm\t["jobs_ended", {"status": "succeeded", "new_label": "x"}]']
    api.store.redis.hset("ripple:counters", mapping=dict.fromkeys(fields, "1"))
    assert ended(scrape(api)) == 0
