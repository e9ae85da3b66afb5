"""Estimates of what a request costs, from what finished jobs took."""

from typing import Any

import pytest
from redis import Redis
from samples import METRICS

from ripple_core.contract.estimate import Estimator
from ripple_core.contract.metrics import JobMetrics, LatencySeconds
from ripple_core.contract.models import find_model
from ripple_core.contract.request import GenerateRequest, ResolvedRequest
from ripple_core.contract.validate import resolve

SPEC = find_model("builtin")


def request(**fields: Any) -> ResolvedRequest:
    return resolve(GenerateRequest.model_validate({"prompt": "x"} | fields), SPEC)


def metrics(seconds: float, savings: float, queue: float = 0.0, load: float = 0.0) -> JobMetrics:
    latency = LatencySeconds(queue=queue, load=load, total=seconds + queue + load)
    attention = METRICS.attention.model_copy(update={"savings": savings})
    return METRICS.model_copy(update={"latency_s": latency, "attention": attention})


@pytest.fixture
def estimator(redis_client: Redis) -> Estimator:
    return Estimator(redis_client)


def estimate(estimator: Estimator, asked: ResolvedRequest) -> Any:
    # Another process reads what this one wrote: not through its cache.
    return Estimator(estimator._redis).estimate(SPEC, asked)


def test_before_any_job_only_what_can_be_counted_is_told(estimator: Estimator) -> None:
    told = estimate(estimator, request())
    assert told.tokens == 2304
    assert told.dense_flops == 20 * 2 * 6 * 4 * 2304**2 * 192
    assert (told.executed_flops, told.seconds, told.based_on_jobs) == (None, None, 0)


@pytest.mark.parametrize("reuse", [{"mode": "dense"}, {"aggressiveness": 0}])
def test_dense_requests_save_nothing_for_certain(estimator: Estimator, reuse: dict[str, Any]) -> None:
    told = estimate(estimator, request(reuse=reuse))
    assert told.executed_flops == told.dense_flops


def test_the_same_request_takes_as_long_as_the_last_one(estimator: Estimator) -> None:
    estimator.remember(SPEC, request(), metrics(12, savings=0.5, queue=100, load=30))
    told = estimate(estimator, request())
    assert told.seconds == pytest.approx(12)
    assert told.executed_flops == pytest.approx(told.dense_flops / 2)
    assert told.based_on_jobs == 1


def test_half_the_steps_take_half_as_long(estimator: Estimator) -> None:
    estimator.remember(SPEC, request(), metrics(12, savings=0.5))
    assert estimate(estimator, request(num_inference_steps=10)).seconds == pytest.approx(6)


def test_savings_of_another_dial_are_not_expected(estimator: Estimator) -> None:
    estimator.remember(SPEC, request(), metrics(12, savings=0.5))
    told = estimate(estimator, request(reuse={"aggressiveness": 1.0}))
    assert told.executed_flops is None
    assert told.seconds > 12, "unknown savings count as none"


def test_between_two_values_of_the_dial_savings_are_interpolated(estimator: Estimator) -> None:
    def expected(aggressiveness: float) -> float:
        told = estimate(estimator, request(reuse={"aggressiveness": aggressiveness}))
        return 1 - told.executed_flops / told.dense_flops

    estimator.remember(SPEC, request(reuse={"aggressiveness": 0.8}), metrics(12, savings=0.6))
    assert expected(0.4) == pytest.approx(0.3), "from 0, where nothing is saved"
    for savings in (0.1, 0.5, 0.5):
        estimator.remember(SPEC, request(reuse={"aggressiveness": 0.4}), metrics(12, savings))
    assert expected(0.6) == pytest.approx(0.55)
    assert expected(0.2) == pytest.approx(0.25)
    assert expected(0.42) == pytest.approx(0.5), "so near counts as there"


def test_the_dense_twin_of_a_quality_check_takes_its_time(estimator: Estimator) -> None:
    estimator.remember(SPEC, request(), metrics(12, savings=0.0))
    assert estimate(estimator, request(quality_check=True)).seconds == pytest.approx(24)


def test_one_job_that_was_disturbed_does_not_decide(estimator: Estimator) -> None:
    for seconds in (10, 11, 200, 10, 12):
        estimator.remember(SPEC, request(), metrics(seconds, savings=0.5))
    assert estimate(estimator, request()).seconds == pytest.approx(11)


def test_the_nearest_size_decides(estimator: Estimator) -> None:
    for _ in range(9):
        estimator.remember(SPEC, request(), metrics(12, savings=0.5))
        estimator.remember(SPEC, request(width=32, height=32), metrics(1, savings=0.0))
    assert estimate(estimator, request()).seconds == pytest.approx(12)


def test_only_the_latest_jobs_are_kept(estimator: Estimator) -> None:
    for _ in range(250):
        estimator.remember(SPEC, request(), metrics(12, savings=0.5))
    assert estimator._redis.llen("ripple:history:timeripple/builtin") == 200
