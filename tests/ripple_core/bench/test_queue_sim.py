"""The simulation of fleets against queueing theory, and what each policy promises."""

import math
from collections import Counter, defaultdict
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ripple_core.bench.queue_sim import Job, Policy, ServedModel, draw_jobs, simulate, summarise

FIFO = Policy("fifo")
WARM = Policy("warm_first", head_start_seconds=math.inf)
BOUNDED = Policy("bounded", head_start_seconds=math.inf, overdue_seconds=200)
HEAD_START = Policy("head_start", head_start_seconds=200)
GRACE = Policy("grace", head_start_seconds=200, grace_seconds=2)
POLICIES = [FIFO, WARM, BOUNDED, HEAD_START, GRACE]
MODELS = [
    ServedModel(name="popular", share=70, job_seconds=[8.0, 12.0], load_seconds=15),
    ServedModel(name="other", share=27, job_seconds=[20.0], load_seconds=30),
    ServedModel(name="rare", share=3, job_seconds=[20.0], load_seconds=30),
]


def erlang_c(num_servers: int, load: float) -> float:
    """Probability that a job must wait in an M/M/c queue; load = arrival rate x mean service time."""
    last = load**num_servers / math.factorial(num_servers) * num_servers / (num_servers - load)
    return last / (sum(load**n / math.factorial(n) for n in range(num_servers)) + last)


@pytest.mark.parametrize(("num_gpus", "utilisation"), [(1, 0.5), (4, 0.8), (10, 0.9)])
def test_one_model_with_exponential_times_waits_as_erlang_says(num_gpus: int, utilisation: float) -> None:
    rng = np.random.default_rng(1)
    times = rng.exponential(1, 100_000).tolist()
    models = [ServedModel(name="only", share=1, job_seconds=times, load_seconds=0)]
    jobs = draw_jobs(models, num_gpus, utilisation, 60_000, rng)
    runs = simulate(jobs, models, num_gpus, FIFO)
    counted = [run for run in runs if run.job.index > 6_000]
    chance = erlang_c(num_gpus, utilisation * num_gpus)
    waits = [run.taken_at - run.job.arrived_at for run in counted]
    assert np.mean([wait > 1e-9 for wait in waits]) == pytest.approx(chance, rel=0.1)
    # Priorities change who waits, not how long all wait together.
    assert np.mean(waits) == pytest.approx(chance / (num_gpus * (1 - utilisation)), rel=0.15)


def drawn(utilisation: float, num_gpus: int = 6) -> list[Job]:
    """Jobs of one priority, so that nothing but the policy decides."""
    jobs = draw_jobs(MODELS, num_gpus, utilisation, 6_000, np.random.default_rng(7))
    return [replace(job, priority=1) for job in jobs]


def test_the_same_seed_gives_the_same_runs() -> None:
    assert simulate(drawn(0.8), MODELS, 6, BOUNDED) == simulate(drawn(0.8), MODELS, 6, BOUNDED)


def test_warm_first_saves_cold_starts_and_a_grace_for_idle_gpus_saves_more() -> None:
    jobs = drawn(0.5)
    cold = {policy.name: sum(run.is_cold for run in simulate(jobs, MODELS, 6, policy)) for policy in POLICIES}
    assert cold["warm_first"] < cold["fifo"]
    assert cold["grace"] < cold["head_start"] < cold["fifo"]


def longest_wait_of_rare(policy: Policy, jobs: list[Job]) -> float:
    return max(run.taken_at - run.job.arrived_at for run in simulate(jobs, MODELS, 6, policy) if run.job.model == 2)


def test_rare_jobs_wait_less_with_a_bound() -> None:
    """GPUs that always find warm work never turn to a cold job; a bound makes them."""
    jobs = drawn(0.85)
    longest = longest_wait_of_rare(WARM, jobs)
    assert longest_wait_of_rare(BOUNDED, jobs) < longest
    assert longest_wait_of_rare(HEAD_START, jobs) < longest


def test_a_head_start_keeps_up_where_overdue_jobs_first_does_not() -> None:
    """Once all jobs are overdue the oldest goes first, whatever is warm, and the cold starts keep all jobs overdue."""
    jobs = drawn(0.95)
    cold = {policy.name: sum(run.is_cold for run in simulate(jobs, MODELS, 6, policy)) for policy in POLICIES}
    assert cold["head_start"] < cold["bounded"] / 4


def test_holding_all_models_a_gpu_loads_each_once() -> None:
    jobs = draw_jobs(MODELS, 4, 0.8, 3_000, np.random.default_rng(3))
    runs = simulate(jobs, MODELS, 4, WARM, models_per_gpu=3)
    loads = Counter((run.gpu, run.job.model) for run in runs if run.is_cold)
    assert set(loads.values()) == {1}


def test_shares_of_time_and_waits_of_a_single_gpu() -> None:
    model = [ServedModel(name="only", share=1, job_seconds=[10.0], load_seconds=5)]
    jobs = [Job(0, 0.0, 0, 1, 10.0), Job(1, 2.0, 0, 1, 10.0), Job(2, 20.0, 0, 0, 10.0)]
    result = summarise(simulate(jobs, model, 1, FIFO), model, 1, FIFO, 1, 0.5, warm_up=0)
    assert (result.loading_share, result.generating_share, result.cold_starts) == (5 / 20, 15 / 20, 1)
    assert (result.waits.max_s, result.waits.p50_s) == (13.0, 5.0)
    assert result.waiting_at_last_arrival == 1
    assert result.by_priority["high"].max_s == 5.0


@st.composite
def workloads(draw: st.DrawFn) -> list[Job]:
    times = sorted(draw(st.lists(st.integers(0, 300), min_size=1, max_size=40)))
    return [
        Job(index, float(time), draw(st.integers(0, 2)), draw(st.integers(0, 2)), float(draw(st.integers(1, 60))))
        for index, time in enumerate(times)
    ]


@settings(deadline=None, max_examples=200)
@given(workloads(), st.integers(1, 4), st.integers(1, 2), st.sampled_from(POLICIES))
def test_every_job_runs_once_and_no_gpu_does_two_things_at_once(
    jobs: list[Job], num_gpus: int, models_per_gpu: int, policy: Policy
) -> None:
    runs = simulate(jobs, MODELS, num_gpus, policy, models_per_gpu)
    assert sorted(run.job.index for run in runs) == list(range(len(jobs)))
    assert all(run.job.arrived_at <= run.taken_at <= run.began_at for run in runs)
    by_gpu = defaultdict(list)
    for run in sorted(runs, key=lambda run: run.taken_at):
        by_gpu[run.gpu].append(run)
    for row in by_gpu.values():
        assert all(before.ended_at <= after.taken_at for before, after in pairwise(row))


@settings(deadline=None, max_examples=200)
@given(workloads(), st.integers(1, 4), st.sampled_from(POLICIES))
def test_nobody_is_overtaken_but_as_the_policy_says(jobs: list[Job], num_gpus: int, policy: Policy) -> None:
    """Only jobs of a higher priority, overdue ones and warm ones pass a waiting job, or all while it has its grace."""
    runs = simulate(jobs, MODELS, num_gpus, policy)
    holds: dict[int, int] = {}
    for run in sorted(runs, key=lambda run: run.taken_at):
        taken, now = run.job, run.taken_at
        for other in (other.job for other in runs if other.job.arrived_at < now < other.taken_at):
            if not policy.allows(other, [holds[run.gpu]] if run.gpu in holds else [], now):
                continue
            assert taken.priority <= other.priority
            if taken.priority < other.priority or taken.arrived_at <= other.arrived_at:
                continue
            assert now - other.arrived_at <= policy.overdue_seconds
            assert taken.arrived_at - other.arrived_at <= policy.head_start_seconds
            assert holds.get(run.gpu) == taken.model != other.model
        holds[run.gpu] = taken.model
