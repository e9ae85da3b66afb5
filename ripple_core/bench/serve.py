"""Load on a running server: how fast jobs are accepted, how soon they start, how many event streams it holds.

The jobs are as small as the model makes them, so that a worker really runs them all and the server is what is measured.
"""

import asyncio
import json
import os
import platform
import shlex
import statistics
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import httpx
from prometheus_client.parser import text_string_to_metric_families
from pydantic import BaseModel, Field

from ripple_core.contract.job import JobStatus

_TIMEOUT_SECONDS = 60.0
# Some connections of a keep-alive pool, as a handful of busy clients would hold.
_CONNECTIONS = 8
_SMALLEST: dict[str, Any] = {
    "prompt": "a red circle",
    "width": 16,
    "height": 16,
    "num_frames": 1,
    "num_inference_steps": 1,
    "guidance_scale": 1.0,
    "reuse": {"mode": "dense"},
}


class Quantiles(BaseModel):
    """Milliseconds."""

    p50_ms: float
    p99_ms: float
    max_ms: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Self:
        """From at least two durations."""
        cuts = statistics.quantiles(seconds, n=100, method="inclusive")
        return cls(p50_ms=cuts[49] * 1000, p99_ms=cuts[98] * 1000, max_ms=max(seconds) * 1000)


class StartLatency(BaseModel):
    """From the client's POST until a worker has the job, one at a time on an idle server."""

    num_jobs: int
    post_to_start: Quantiles


class Submissions(BaseModel):
    """`POST /generate` for some seconds, while a worker runs the jobs."""

    offered_per_second: float | None = Field(description="Fixed rate; null where clients send as fast as they can.")
    accepted_per_second: float
    answer: Quantiles = Field(description="From the moment a request was due, so that waiting for a client counts.")
    statuses: dict[int, int]
    jobs_finished: int = Field(description="By the worker in the same time.")


class EventStreams(BaseModel):
    """Streams of events, each of its own job, open at once until the job's end."""

    num_streams: int
    complete: int = Field(description="That told every state to the end.")
    delay: Quantiles = Field(description="From a change of state to its arrival at the client.")


class ServeReport(BaseModel):
    """The whole record."""

    cores: int
    machine: str
    date: str
    command: str
    start: StartLatency
    fixed_rate: Submissions
    unlimited: Submissions
    streams: EventStreams


@dataclass(frozen=True)
class ServeRun:
    """What to measure: submissions at `rate` a second for `seconds`, then as many as go, then `num_streams` streams."""

    url: str
    rate: float
    seconds: float
    num_streams: int
    num_starts: int = 40


async def measure_serving(run: ServeRun) -> ServeReport:
    """Measure everything, one after the other.

    Raises:
        httpx.HTTPError: when the server cannot be reached or refuses.
    """
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=_CONNECTIONS)
    async with httpx.AsyncClient(base_url=run.url, timeout=_TIMEOUT_SECONDS, limits=limits) as client:
        start = await _measure_start(client, run.num_starts)
        fixed = await _measure_submissions(client, run.seconds, run.rate)
        await _cancel_queued(client)
        unlimited = await _measure_submissions(client, run.seconds, None)
        await _cancel_queued(client)
        streams = await _measure_streams(client, run.num_streams)
    command = [Path(sys.argv[0]).name, *sys.argv[1:]]
    return ServeReport(
        cores=os.cpu_count() or 1,
        machine=platform.machine(),
        date=datetime.now(UTC).date().isoformat(),
        command=shlex.join(command),
        start=start,
        fixed_rate=fixed,
        unlimited=unlimited,
        streams=streams,
    )


async def _measure_start(client: httpx.AsyncClient, num_jobs: int) -> StartLatency:
    waits = []
    # The first one loads the model.
    for _ in range(num_jobs + 1):
        sent_at = time.time()
        job = (await client.post("/generate", json=_SMALLEST, headers={"Prefer": "wait=60"})).raise_for_status().json()
        waits.append(datetime.fromisoformat(job["started_at"]).timestamp() - sent_at)
    return StartLatency(num_jobs=num_jobs, post_to_start=Quantiles.of(waits[1:]))


async def _measure_submissions(client: httpx.AsyncClient, seconds: float, rate: float | None) -> Submissions:
    durations: list[float] = []
    statuses: Counter[int] = Counter()
    finished_before = await _num_finished(client)
    began = time.monotonic()
    turns = iter(range(sys.maxsize))

    async def send_in_turn() -> None:
        while True:
            due = began + next(turns) / rate if rate else time.monotonic()
            if due - began >= seconds:
                return
            await asyncio.sleep(max(due - time.monotonic(), 0))
            answer = await client.post("/generate", json=_SMALLEST)
            statuses[answer.status_code] += 1
            durations.append(time.monotonic() - due)

    await asyncio.gather(*(send_in_turn() for _ in range(_CONNECTIONS)))
    elapsed = time.monotonic() - began
    return Submissions(
        offered_per_second=rate,
        accepted_per_second=statuses[202] / elapsed,
        answer=Quantiles.of(durations),
        statuses=dict(statuses),
        jobs_finished=await _num_finished(client) - finished_before,
    )


async def _measure_streams(client: httpx.AsyncClient, num_streams: int) -> EventStreams:
    jobs = [(await client.post("/generate", json=_SMALLEST)).raise_for_status().json() for _ in range(num_streams)]
    delays: list[float] = []
    told = await asyncio.gather(*(_follow(client, job["links"]["events"], delays) for job in jobs))
    return EventStreams(num_streams=num_streams, complete=sum(told), delay=Quantiles.of(delays))


async def _follow(client: httpx.AsyncClient, path: str, delays: list[float]) -> bool:
    """Read a stream to its end; True when it told of all three states."""
    states = []
    opened_at = time.time()
    async with client.stream("GET", path) as answer:
        async for line in answer.aiter_lines():
            if line.startswith("data: ") and "status" in (event := json.loads(line.removeprefix("data: "))):
                states.append(event["status"])
                happened_at = datetime.fromisoformat(event["at"]).timestamp()
                # What happened before the stream was open has not been on its way.
                if happened_at > opened_at:
                    delays.append(time.time() - happened_at)
    return states == ["queued", "running", "succeeded"]


async def _cancel_queued(client: httpx.AsyncClient) -> None:
    """No worker runs as many jobs as a server takes in; what waits must not delay the next measurement."""
    newest: dict[str, str | int] = {"status": "queued", "limit": 100}
    while jobs := (await client.get("/jobs", params=newest)).raise_for_status().json()["jobs"]:
        for at in range(0, len(jobs), _CONNECTIONS):
            await asyncio.gather(*(client.delete(job["links"]["self"]) for job in jobs[at : at + _CONNECTIONS]))


async def _num_finished(client: httpx.AsyncClient) -> int:
    text = (await client.get("/metrics")).raise_for_status().text
    samples = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
    ended = (sample for sample in samples if sample.name == "timeripple_jobs_ended_total")
    return int(sum(sample.value for sample in ended if sample.labels["status"] == JobStatus.SUCCEEDED))
