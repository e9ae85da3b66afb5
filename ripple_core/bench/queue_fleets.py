"""Fleets of several sizes under the policies to compare, all on the same jobs."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, Field

from ripple_core.bench.queue_sim import (
    PRIORITY_SHARES,
    FleetResult,
    Policy,
    ServedModel,
    draw_jobs,
    simulate,
    summarise,
)
from ripple_core.bench.queue_times import ASSUMED_MIX, AssumedModel, MeasuredTimes
from ripple_core.contract.request import Priority

_LEAST_JOBS = 20_000
_JOBS_OF_A_GPU = 60
# Longer than it takes to ask Redis, much shorter than loading.
_GRACE_SECONDS = 2.0


@dataclass(frozen=True)
class FleetRun:
    """What to simulate.

    Attributes:
        models: of every fleet.
        num_gpus: a fleet of each size.
        utilisations: at each of these shares of what the fleet can generate when it never loads.
        models_per_gpu: how many a GPU holds.
        bound_seconds: head start of jobs whose model a GPU holds, and the wait after which a job is overdue.
        seed: of the jobs.
    """

    models: Sequence[ServedModel]
    num_gpus: Sequence[int]
    utilisations: Sequence[float]
    models_per_gpu: int
    bound_seconds: float
    seed: int


class SimulationReport(BaseModel):
    """Everything simulated, and what went in."""

    measured: MeasuredTimes | None = Field(description="Null where the models came from a file.")
    assumed_mix: list[AssumedModel] | None = Field(description="The same.")
    scale: float | None = Field(description="Measured seconds were multiplied by this, and by the model's work.")
    models: list[ServedModel]
    priority_shares: dict[Priority, float] = Field(description="Assumed.")
    bound_seconds: float
    seed: int
    fleets: list[FleetResult] = []


def policies(bound_seconds: float) -> list[Policy]:
    """Those compared; the workers' own is `head_start_grace`."""
    return [
        Policy("fifo"),
        Policy("warm_first", head_start_seconds=math.inf),
        Policy("warm_first_overdue", head_start_seconds=math.inf, overdue_seconds=bound_seconds),
        Policy("head_start", head_start_seconds=bound_seconds),
        Policy("head_start_grace", head_start_seconds=bound_seconds, grace_seconds=_GRACE_SECONDS),
    ]


def simulate_fleets(run: FleetRun, on_fleet: Callable[[FleetResult], None] = lambda _: None) -> list[FleetResult]:
    """Every fleet at every utilisation under every policy.

    Args:
        run: what to simulate.
        on_fleet: called with each result.
    """
    results = []
    for num_gpus in run.num_gpus:
        num_jobs = max(_LEAST_JOBS, _JOBS_OF_A_GPU * num_gpus)
        for utilisation in run.utilisations:
            rng = np.random.default_rng([run.seed, num_gpus, round(utilisation * 1000)])
            jobs = draw_jobs(run.models, num_gpus, utilisation, num_jobs, rng)
            for policy in policies(run.bound_seconds):
                runs = simulate(jobs, run.models, num_gpus, policy, run.models_per_gpu)
                results.append(summarise(runs, run.models, num_gpus, policy, run.models_per_gpu, utilisation))
                on_fleet(results[-1])
    return results


def simulation_report(
    run: FleetRun, fleets: list[FleetResult], measured: MeasuredTimes | None, scale: float
) -> SimulationReport:
    """The record of a run; without measured times its models came from a file, as they are."""
    return SimulationReport(
        measured=measured,
        assumed_mix=ASSUMED_MIX if measured else None,
        scale=scale if measured else None,
        models=list(run.models),
        priority_shares=PRIORITY_SHARES,
        bound_seconds=run.bound_seconds,
        seed=run.seed,
        fleets=fleets,
    )
