"""Job records in Redis: the one module that knows the keys.

Every change of a status is a compare-and-set in one Lua script, so a terminal status never changes, and every
change also goes to the job's event stream. A running job belongs to one execution (a token made when it was
claimed): whoever lost the job to another execution can no longer write to it.

Keys, all under `ripple:`:
    job:{id}            hash: the record
    job:{id}:events     stream: state changes and progress
    jobs                sorted set of all ids; ids sort by creation time
    jobs:{status}       the same for one status
    totals              hash: counters over all jobs ever
    worker:{name}       lives as long as a worker's heartbeat
"""

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from redis import Redis
from redis.client import Pipeline

from ripple_core.contract.errors import JobNotFound
from ripple_core.contract.job import TRANSITIONS, JobError, JobRecord, JobStatus, Progress, utc_now
from ripple_core.contract.metrics import JobMetrics

_PREFIX = "ripple:"
_JSON_FIELDS = {"request", "progress", "error", "metrics"}

# KEYS: job, events. ARGV: prefix, id, allowed statuses, new status, owning execution or "", event, fields...
_TRANSITION = """
local status = redis.call('HGET', KEYS[1], 'status')
if not status then return 'missing' end
if not string.find(ARGV[3], ',' .. status .. ',', 1, true) then return status end
if ARGV[5] ~= '' and redis.call('HGET', KEYS[1], 'execution') ~= ARGV[5] then return 'lost' end
redis.call('HSET', KEYS[1], 'status', ARGV[4], unpack(ARGV, 7))
if ARGV[4] == 'running' then redis.call('HINCRBY', KEYS[1], 'attempts', 1) end
redis.call('ZREM', ARGV[1] .. 'jobs:' .. status, ARGV[2])
redis.call('ZADD', ARGV[1] .. 'jobs:' .. ARGV[4], 0, ARGV[2])
redis.call('XADD', KEYS[2], 'MAXLEN', '~', 1000, '*', 'event', 'state', 'data', ARGV[6])
return 'ok'
"""

# KEYS: job, events. ARGV: owning execution, progress. Returns whether the job should go on.
_PROGRESS = """
if redis.call('HGET', KEYS[1], 'status') ~= 'running' then return 0 end
if redis.call('HGET', KEYS[1], 'execution') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'progress', ARGV[2])
redis.call('XADD', KEYS[2], 'MAXLEN', '~', 1000, '*', 'event', 'progress', 'data', ARGV[2])
return redis.call('HGET', KEYS[1], 'cancel_requested') == '1' and 0 or 1
"""


class JobStore:
    """All reads and writes of job records.

    Args:
        redis: a client without decode_responses, as RQ needs it too.

    Raises:
        redis.RedisError: from every method, when Redis cannot be reached.
    """

    def __init__(self, redis: Redis) -> None:
        # Any: redis-py types every answer as bytes or text, and ours are bytes.
        self.redis: Any = redis
        self._transition_script = redis.register_script(_TRANSITION)
        self._progress_script = redis.register_script(_PROGRESS)

    def add(self, record: JobRecord, pipeline: Pipeline) -> None:
        """Queue the commands that store a new record; the caller executes the transaction."""
        pipeline.hset(_job_key(record.id), mapping=_encode(record.model_dump(mode="json")))
        pipeline.zadd(f"{_PREFIX}jobs", {record.id: 0})
        pipeline.zadd(f"{_PREFIX}jobs:{record.status}", {record.id: 0})
        pipeline.xadd(events_key(record.id), {"event": "state", "data": _state_event(record.status)})

    def get(self, job_id: str) -> JobRecord:
        """Read one record.

        Raises:
            JobNotFound: when there is none.
        """
        record = _decode(self.redis.hgetall(_job_key(job_id)))
        if record is None:
            raise JobNotFound(job_id)
        return record

    def page(self, status: JobStatus | None, before: str | None, limit: int) -> list[JobRecord]:
        """Records newest first, from after the id `before`, optionally of one status only."""
        key = f"{_PREFIX}jobs:{status}" if status else f"{_PREFIX}jobs"
        newest = f"({before}" if before else "+"
        ids = self.redis.zrevrangebylex(key, newest, "-", start=0, num=limit)
        pipeline = self.redis.pipeline(transaction=False)
        for job_id in ids:
            pipeline.hgetall(_job_key(job_id.decode()))
        return [record for fields in pipeline.execute() if (record := _decode(fields)) is not None]

    def ids(self, status: JobStatus) -> list[str]:
        """Ids of all jobs of one status, oldest first."""
        return [job_id.decode() for job_id in self.redis.zrange(f"{_PREFIX}jobs:{status}", 0, -1)]

    def counts(self) -> dict[JobStatus, int]:
        """Number of stored jobs by status."""
        pipeline = self.redis.pipeline(transaction=False)
        for status in JobStatus:
            pipeline.zcard(f"{_PREFIX}jobs:{status}")
        return dict(zip(JobStatus, pipeline.execute(), strict=True))

    def claim(self, job_id: str, execution: str, worker: str) -> bool:
        """queued -> running for this execution of this worker, one attempt more; False when someone else was faster."""
        fields = {"started_at": utc_now().isoformat(), "execution": f"{worker}/{execution}"}
        return self._transition(job_id, (JobStatus.QUEUED,), JobStatus.RUNNING, fields)

    def set_progress(self, job_id: str, owner: str, progress: Progress) -> bool:
        """Record progress; False when the job was cancelled or now belongs to another execution."""
        keys = [_job_key(job_id), events_key(job_id)]
        return bool(self._progress_script(keys=keys, args=[owner, progress.model_dump_json()]))

    def should_stop(self, job_id: str, owner: str) -> bool:
        """True when the job was cancelled or now belongs to another execution.

        Raises:
            JobNotFound: when it has been deleted.
        """
        record = self.get(job_id)
        return record.cancel_requested or record.status != JobStatus.RUNNING or record.execution != owner

    def succeed(self, job_id: str, owner: str, metrics: JobMetrics, total_steps: int) -> bool:
        """running -> succeeded."""
        progress = Progress(stage="done", step=total_steps, total_steps=total_steps, fraction=1.0, eta_s=0.0)
        fields = {"metrics": metrics.model_dump_json(), "progress": progress.model_dump_json()}
        return self._finish(job_id, (JobStatus.RUNNING,), JobStatus.SUCCEEDED, fields, owner)

    def fail(self, job_id: str, owner: str, error: JobError) -> bool:
        """running -> failed."""
        fields = {"error": error.model_dump_json()}
        return self._finish(job_id, (JobStatus.RUNNING,), JobStatus.FAILED, fields, owner, error)

    def finish_cancel(self, job_id: str, owner: str) -> bool:
        """running -> cancelled, by the worker that stopped."""
        return self._finish(job_id, (JobStatus.RUNNING,), JobStatus.CANCELLED, {}, owner)

    def request_cancel(self, job_id: str) -> JobRecord:
        """Cancel a queued job at once and ask a running one to stop; a finished one stays as it is."""
        if not self._finish(job_id, (JobStatus.QUEUED,), JobStatus.CANCELLED, {}):
            self.get(job_id)
            self.redis.hset(_job_key(job_id), "cancel_requested", "1")
        return self.get(job_id)

    def return_to_queue(self, job_id: str, owner: str) -> bool:
        """running -> queued: the worker that ran it is gone."""
        fields = {"progress": Progress().model_dump_json(), "execution": ""}
        return self._transition(job_id, (JobStatus.RUNNING,), JobStatus.QUEUED, fields, owner)

    def delete(self, job_id: str) -> None:
        """Forget a finished job altogether."""
        pipeline = self.redis.pipeline()
        pipeline.delete(_job_key(job_id), events_key(job_id))
        for index in ("jobs", *(f"jobs:{status}" for status in JobStatus)):
            pipeline.zrem(f"{_PREFIX}{index}", job_id)
        pipeline.execute()

    def has_events_after(self, job_id: str, event_id: str) -> bool:
        """True when the job's stream goes on after this event."""
        return bool(self.redis.xrange(events_key(job_id), min=f"({event_id}", count=1))

    def add_totals(self, amounts: Mapping[str, float]) -> None:
        """Add to the counters that outlive every worker, e.g. {"attention_dense_flops": 1e12}."""
        pipeline = self.redis.pipeline()
        for name, amount in amounts.items():
            pipeline.hincrbyfloat(f"{_PREFIX}totals", name, amount)
        pipeline.execute()

    def totals(self) -> dict[str, float]:
        """All counters since the store was made."""
        return {name.decode(): float(value) for name, value in self.redis.hgetall(f"{_PREFIX}totals").items()}

    def beat(self, worker: str, lifetime: timedelta) -> None:
        """Tell that a worker lives."""
        self.redis.set(f"{_PREFIX}worker:{worker}", utc_now().isoformat(), ex=lifetime)

    def forget_worker(self, worker: str) -> None:
        """Tell that a worker has stopped."""
        self.redis.delete(f"{_PREFIX}worker:{worker}")

    def live_workers(self) -> set[str]:
        """Names of all workers with a fresh heartbeat."""
        prefix = f"{_PREFIX}worker:"
        return {key.decode().removeprefix(prefix) for key in self.redis.scan_iter(f"{prefix}*", count=1000)}

    def _finish(
        self,
        job_id: str,
        allowed: tuple[JobStatus, ...],
        status: JobStatus,
        fields: Mapping[str, str],
        owner: str = "",
        error: JobError | None = None,
    ) -> bool:
        stamped = {"finished_at": utc_now().isoformat(), **fields}
        return self._transition(job_id, allowed, status, stamped, owner, error)

    def _transition(
        self,
        job_id: str,
        allowed: tuple[JobStatus, ...],
        status: JobStatus,
        fields: Mapping[str, str],
        owner: str = "",
        error: JobError | None = None,
    ) -> bool:
        assert all(status in TRANSITIONS[before] for before in allowed)
        flat = [part for item in fields.items() for part in item]
        arguments = [_PREFIX, job_id, f",{','.join(allowed)},", status, owner, _state_event(status, error), *flat]
        outcome = self._transition_script(keys=[_job_key(job_id), events_key(job_id)], args=arguments)
        if outcome == b"missing":
            raise JobNotFound(job_id)
        return bool(outcome == b"ok")


def events_key(job_id: str) -> str:
    """The stream of a job's events, for readers that wait on it."""
    return f"{_PREFIX}job:{job_id}:events"


def _job_key(job_id: str) -> str:
    return f"{_PREFIX}job:{job_id}"


def _state_event(status: JobStatus, error: JobError | None = None) -> str:
    event = {"status": status, "at": utc_now().isoformat(), "error": error.model_dump() if error else None}
    return json.dumps(event)


def _encode(fields: Mapping[str, Any]) -> dict[Any, Any]:
    encoded = {}
    for name, value in fields.items():
        if name in _JSON_FIELDS:
            encoded[name] = json.dumps(value)
        elif isinstance(value, bool):
            encoded[name] = "1" if value else "0"
        else:
            encoded[name] = "" if value is None else str(value)
    return encoded


def _decode(fields: Mapping[bytes, bytes]) -> JobRecord | None:
    # A hash without a status is not a job: a late cancel flag on one just deleted, say.
    if b"status" not in fields:
        return None
    text = {name.decode(): value.decode() for name, value in fields.items()}
    return JobRecord.model_validate(
        {name: json.loads(value) if name in _JSON_FIELDS else value or None for name, value in text.items()}
    )
