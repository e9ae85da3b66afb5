"""What a worker tells Prometheus."""

from pathlib import Path

import pytest
from prometheus_client import generate_latest
from samples import METRICS
from scraped import Scrape

from ripple_core.contract.metrics import LatencySeconds
from worker.gpus import GpuCollector
from worker.metrics import SECONDS, WorkerMetrics

MODEL = "m"


def scrape(metrics: WorkerMetrics) -> Scrape:
    return Scrape(generate_latest(metrics.registry).decode())


def test_series_begin_at_zero_and_buckets_go_from_10_ms_to_an_hour() -> None:
    scraped = scrape(WorkerMetrics([MODEL]))
    assert scraped.value("timeripple_job_seconds_count", model=MODEL) == 0
    assert scraped.value("timeripple_stage_seconds_count", model=MODEL, stage="vae_decode") == 0
    assert scraped.value("timeripple_engine_losses_total", reason="stalled") == 0
    assert scraped.value("timeripple_webhook_attempts_total", outcome="given_up") == 0
    assert (SECONDS[0], SECONDS[-1]) == (0.01, 3600)


def test_a_job_is_observed_in_every_stage_that_it_had() -> None:
    metrics = WorkerMetrics([MODEL])
    metrics.started(MODEL, 70.0)
    latency = LatencySeconds(queue=70.0, denoise=1.5, text_encode=0.02, total=72.0)
    metrics.succeeded(MODEL, METRICS.model_copy(update={"latency_s": latency, "denoising_step_s": [0.5, 1.0]}))
    scraped = scrape(metrics)
    waits = {"model": MODEL, "stage": "queue"}
    assert scraped.value("timeripple_stage_seconds_sum", **waits) == 70.0
    assert scraped.value("timeripple_stage_seconds_bucket", le="60.0", **waits) == 0
    assert scraped.value("timeripple_stage_seconds_bucket", le="120.0", **waits) == 1
    # It was loaded already.
    assert scraped.value("timeripple_stage_seconds_count", model=MODEL, stage="load") == 0
    assert scraped.value("timeripple_denoising_step_seconds_sum") == 1.5
    assert scraped.value("timeripple_denoising_step_seconds_count") == 2
    assert scraped.value("timeripple_job_savings_ratio_sum") == METRICS.attention.savings


def test_the_engines_process_is_told_of_while_it_lives() -> None:
    metrics = WorkerMetrics([])
    metrics.watch_engine(lambda: None)
    assert scrape(metrics).values("timeripple_engine_process_resident_memory_bytes") == []
    own = WorkerMetrics([])
    own.watch_engine(lambda: 1)
    assert scrape(own).value("timeripple_engine_process_resident_memory_bytes") > 0


def test_without_a_gpu_there_are_no_figures_of_one() -> None:
    if any(Path("/dev").glob("nvidia[0-9]*")):
        pytest.skip("this machine has a GPU")
    assert [family.samples for family in GpuCollector().collect()] == [[]] * 4
