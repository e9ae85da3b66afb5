"""Counters over all jobs, on their way to Redis and back."""

import json

from hypothesis import given
from hypothesis import strategies as st
from redis import Redis
from samples import METRICS

from ripple_core.contract import counters
from ripple_core.contract.counters import Count
from ripple_core.contract.metrics import Fallback, Retry

WORDS = st.text(min_size=1, max_size=20)


@given(st.floats(0, 1))
def test_the_dial_becomes_one_of_five_labels_that_is_not_below_it(aggressiveness: float) -> None:
    label = counters.quarter(aggressiveness)
    assert label in {"0", "0.25", "0.5", "0.75", "1"}
    assert aggressiveness <= float(label) <= aggressiveness + 0.25


def test_labels_may_be_any_words(redis_client: Redis) -> None:
    @given(WORDS, st.dictionaries(WORDS, WORDS, max_size=3), st.floats(0, 1e30))
    def check(name: str, labels: dict[str, str], amount: float) -> None:
        field, text = json.loads(counters.encode([Count(name, amount, labels)]))
        redis_client.hset("counters", f"a model\t{field}", text)
        ((stored, value),) = redis_client.hgetall("counters").items()
        redis_client.delete("counters")
        assert counters.decode(stored, value) == Count(name, amount, {"model": "a model", **labels})

    check()


def test_a_job_counts_its_second_tries_and_fallbacks() -> None:
    attention = METRICS.attention.model_copy(update={"fallbacks": [Fallback(reason="short_sequence", calls=40)]})
    tried = [Retry(reason="out_of_memory", remedy="vae_tiling")]
    counted = counters.measured(METRICS.model_copy(update={"attention": attention, "retries": tried}))
    assert Count("second_tries", 1, {"reason": "out_of_memory", "remedy": "vae_tiling"}) in counted
    assert Count("attention_fallback_calls", 40, {"reason": "short_sequence"}) in counted


def test_without_an_estimate_its_time_is_not_counted_either() -> None:
    names = {count.name for count in counters.measured(METRICS)}
    assert "denoise_seconds" in names
    assert not {"estimated_denoise_seconds", "dense_denoise_estimate_seconds"} & names


def test_the_jobs_of_a_batch_count_their_seconds_once() -> None:
    together = METRICS.model_copy(update={"batch_size": 3, "dense_denoise_estimate_s": 6.0})
    counted = {count.name: count.amount for _ in range(3) for count in counters.measured(together)}
    assert 3 * counted["denoise_seconds"] == METRICS.latency_s.denoise
    assert 3 * counted["dense_denoise_estimate_seconds"] == 6.0
    assert counted["attention_dense_flops"] == METRICS.attention.dense_flops


def test_all_that_a_job_may_count_by_the_dial_begins_at_zero() -> None:
    zeros = counters.from_zero("m")
    begun = {(count.name, count.labels["aggressiveness"]) for count in zeros if "aggressiveness" in count.labels}
    job = METRICS.model_copy(update={"dense_denoise_estimate_s": 3.0})
    assert {
        (count.name, count.labels["aggressiveness"])
        for count in counters.measured(job)
        if "aggressiveness" in count.labels
    } <= begun
    assert {count.amount for count in zeros} == {0}
