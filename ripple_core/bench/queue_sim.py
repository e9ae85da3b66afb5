"""Fleets of GPUs in simulated time: how long jobs of several models wait, by the rule for who takes what.

One list of waiting jobs for each model and priority, as in Redis; a free GPU takes a job by the policy, and
loads the job's model first when it does not hold it.
"""

import math
from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import simpy
from pydantic import BaseModel, ConfigDict, Field

from ripple_core.contract.request import Priority

# In the order in which they are served, with their share of the jobs.
PRIORITY_SHARES: dict[Priority, float] = {"high": 0.1, "normal": 0.7, "low": 0.2}
_PRIORITIES = list(PRIORITY_SHARES)
# Simulated time adds up with errors.
_ROUNDING_SECONDS = 1e-6


class ServedModel(BaseModel):
    """A model of the fleet."""

    model_config = ConfigDict(frozen=True)

    name: str = Field(description="Whatever tells it from the others.")
    share: float = Field(gt=0, description="Of the jobs, in proportion to the other models' shares.")
    job_seconds: list[float] = Field(min_length=1, description="What its jobs took; each simulated job is one of them.")
    load_seconds: float = Field(ge=0, description="Of a cold start: until a GPU that did not hold it can run a job.")


@dataclass(frozen=True)
class Policy:
    """Which of the waiting jobs a GPU takes, and which idle GPU a job goes to. A higher priority always goes first.

    Attributes:
        name: for the tables.
        head_start_seconds: a job whose model the GPU holds counts as having come so much earlier. 0 takes the oldest,
            whatever the GPU holds; infinity takes others only when no job of a held model waits.
        overdue_seconds: a job that has waited longer goes before all that have not, whatever its model.
        grace_seconds: a job is left for so long to GPUs that hold its model, even while others are idle. At 0 it goes
            to the GPU that was idle for longest, as Redis has it.
    """

    name: str
    head_start_seconds: float = 0.0
    overdue_seconds: float = math.inf
    grace_seconds: float = 0.0

    def rank(self, job: "Job", loaded: Sequence[int], now: float) -> tuple[float, ...]:
        """Of two waiting jobs of the same priority the one with the lower rank goes first."""
        if now - job.arrived_at > self.overdue_seconds:
            return 0, job.arrived_at
        head_start = self.head_start_seconds if job.model in loaded else 0.0
        return 1, job.arrived_at - head_start, job.arrived_at

    def allows(self, job: "Job", loaded: Sequence[int], now: float) -> bool:
        """Whether a GPU that holds these models may take the job yet."""
        return job.model in loaded or now - job.arrived_at >= self.grace_seconds - _ROUNDING_SECONDS


@dataclass(frozen=True)
class Job:
    """A job to come; times in seconds since the start of the simulation.

    Attributes:
        index: counts jobs in the order of arrival.
        arrived_at: when it is submitted.
        model: index of its model.
        priority: 0 is the most urgent.
        seconds: what it takes on a GPU that holds its model.
    """

    index: int
    arrived_at: float
    model: int
    priority: int
    seconds: float


@dataclass(frozen=True)
class Run:
    """A job as it went: taken by a GPU, and begun once its model was there."""

    job: Job
    gpu: int
    taken_at: float
    began_at: float

    @property
    def ended_at(self) -> float:
        """When the GPU was done with it."""
        return self.began_at + self.job.seconds

    @property
    def is_cold(self) -> bool:
        """Whether the model had to be loaded."""
        return self.began_at > self.taken_at


def draw_jobs(
    models: Sequence[ServedModel], num_gpus: int, utilisation: float, num_jobs: int, rng: np.random.Generator
) -> list[Job]:
    """Poisson arrivals that keep the GPUs busy for this share of the time, loading not counted."""
    shares = np.array([model.share for model in models])
    shares /= shares.sum()
    mean_seconds = float(shares @ [np.mean(model.job_seconds) for model in models])
    arrivals = np.cumsum(rng.exponential(mean_seconds / (utilisation * num_gpus), num_jobs))
    chosen = rng.choice(len(models), num_jobs, p=shares)
    priorities = rng.choice(len(_PRIORITIES), num_jobs, p=list(PRIORITY_SHARES.values()))
    luck = rng.random(num_jobs)
    jobs = []
    for index in range(num_jobs):
        took = models[chosen[index]].job_seconds
        seconds = took[int(luck[index] * len(took))]
        jobs.append(Job(index, float(arrivals[index]), int(chosen[index]), int(priorities[index]), seconds))
    return jobs


def simulate(
    jobs: Sequence[Job], models: Sequence[ServedModel], num_gpus: int, policy: Policy, models_per_gpu: int = 1
) -> list[Run]:
    """Serve all jobs, on GPUs that hold no model at first; runs come in the order in which they end.

    Args:
        jobs: in the order of arrival.
        models: that the jobs name by index.
        num_gpus: all alike.
        policy: who takes what.
        models_per_gpu: how many a GPU holds; the one unused for longest makes room.
    """
    fleet = _Fleet(models, policy, models_per_gpu)
    fleet.env.process(fleet.submit(jobs))
    for index in range(num_gpus):
        fleet.env.process(fleet.work(_Gpu(index)))
    fleet.env.run()
    return fleet.runs


@dataclass(eq=False)
class _Gpu:
    index: int
    # Unused for longest first.
    loaded: list[int] = field(default_factory=list)


class _Fleet:
    def __init__(self, models: Sequence[ServedModel], policy: Policy, models_per_gpu: int) -> None:
        self.env = simpy.Environment()
        self.runs: list[Run] = []
        self._models = models
        self._policy = policy
        self._models_per_gpu = models_per_gpu
        self._waiting: list[list[deque[Job]]] = [[deque() for _ in models] for _ in _PRIORITIES]
        # Idle for longest first. While one is idle, no job waits that it may take.
        self._idle: dict[_Gpu, simpy.Event] = {}

    def submit(self, jobs: Sequence[Job]) -> Generator[simpy.Event, Any, None]:
        """Put each job, when its time has come, into its queue, and wake a GPU that may take it."""
        for job in jobs:
            yield self.env.timeout(max(job.arrived_at - self.env.now, 0))
            self._waiting[job.priority][job.model].append(job)
            self._wake_for(job, any_gpu=not self._policy.grace_seconds)
            if self._policy.grace_seconds:
                self.env.process(self._wake_after_grace(job))

    def work(self, gpu: _Gpu) -> Generator[simpy.Event, Any, None]:
        """The life of one GPU."""
        while True:
            while (job := self._take(gpu)) is None:
                self._idle[gpu] = self.env.event()
                yield self._idle[gpu]
            taken_at = self.env.now
            if not self._touch(gpu, job.model):
                yield self.env.timeout(self._models[job.model].load_seconds)
            run = Run(job, gpu.index, taken_at, self.env.now)
            yield self.env.timeout(job.seconds)
            self.runs.append(run)

    def _wake_after_grace(self, job: Job) -> Generator[simpy.Event, Any, None]:
        yield self.env.timeout(self._policy.grace_seconds)
        if self._idle and job in self._waiting[job.priority][job.model]:
            self._wake_for(job, any_gpu=True)

    def _wake_for(self, job: Job, any_gpu: bool) -> None:
        """Have an idle GPU look for work, if there is one that may take the job."""
        gpu = next((gpu for gpu in self._idle if any_gpu or job.model in gpu.loaded), None)
        if gpu is not None:
            self._idle.pop(gpu).succeed()

    def _take(self, gpu: _Gpu) -> Job | None:
        for queues in self._waiting:
            heads = [queue[0] for queue in queues if queue and self._policy.allows(queue[0], gpu.loaded, self.env.now)]
            if heads:
                first = min(heads, key=lambda job: self._policy.rank(job, gpu.loaded, self.env.now))
                return queues[first.model].popleft()
        return None

    def _touch(self, gpu: _Gpu, model: int) -> bool:
        """Make the model the last one used; False when it has to be loaded."""
        held = model in gpu.loaded
        if held:
            gpu.loaded.remove(model)
        gpu.loaded = [*gpu.loaded, model][-self._models_per_gpu :]
        return held


class Waits(BaseModel):
    """Seconds from a job's arrival until it began, a cold start included."""

    num_jobs: int
    p50_s: float
    p95_s: float
    p99_s: float
    max_s: float

    @classmethod
    def of(cls, runs: Sequence[Run]) -> "Waits":
        """From at least one run."""
        waits = [max(run.began_at - run.job.arrived_at, 0.0) for run in runs]
        p50, p95, p99, most = (float(value) for value in np.quantile(waits, [0.5, 0.95, 0.99, 1]))
        return cls(num_jobs=len(runs), p50_s=p50, p95_s=p95, p99_s=p99, max_s=most)


class FleetResult(BaseModel):
    """How one fleet did under one policy. Shares of time run from the first job counted to the last arrival."""

    policy: str
    num_gpus: int
    models_per_gpu: int
    offered_utilisation: float = Field(description="GPU time that the jobs ask for, cold starts not counted.")
    generating_share: float = Field(description="Of all GPU time.")
    loading_share: float = Field(description="Of all GPU time: the cost of cold starts.")
    cold_starts: int = Field(description="Among the jobs counted.")
    waiting_at_last_arrival: int = Field(description="Jobs; many of them where the fleet cannot keep up.")
    waits: Waits
    by_priority: dict[Priority, Waits]
    by_model: dict[str, Waits] = Field(description="In the order of the models' shares as given.")


def summarise(
    runs: Sequence[Run],
    models: Sequence[ServedModel],
    num_gpus: int,
    policy: Policy,
    models_per_gpu: int,
    utilisation: float,
    warm_up: float = 0.1,
) -> FleetResult:
    """Figures of a simulation, without its first jobs (the share `warm_up` of them), which find an empty fleet."""
    skipped = math.ceil(len(runs) * warm_up)
    counted = [run for run in runs if run.job.index >= skipped]
    begin = min(run.job.arrived_at for run in counted)
    end = max(run.job.arrived_at for run in counted)

    def share(spans: Sequence[tuple[float, float]]) -> float:
        return sum(max(min(stop, end) - max(start, begin), 0) for start, stop in spans) / ((end - begin) * num_gpus)

    groups = {index: [run for run in counted if run.job.model == index] for index in range(len(models))}
    ranks = {rank: [run for run in counted if run.job.priority == rank] for rank in range(len(_PRIORITIES))}
    return FleetResult(
        policy=policy.name,
        num_gpus=num_gpus,
        models_per_gpu=models_per_gpu,
        offered_utilisation=utilisation,
        generating_share=share([(run.began_at, run.ended_at) for run in runs]),
        loading_share=share([(run.taken_at, run.began_at) for run in runs]),
        cold_starts=sum(run.is_cold for run in counted),
        waiting_at_last_arrival=sum(run.taken_at > end for run in runs),
        waits=Waits.of(counted),
        by_priority={_PRIORITIES[rank]: Waits.of(group) for rank, group in ranks.items() if group},
        by_model={models[index].name: Waits.of(group) for index, group in groups.items() if group},
    )
