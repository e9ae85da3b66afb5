"""Job records in Redis: with `submission` and `scripts`, the modules that know the keys.

Every change of a status is a compare-and-set in one Lua script, so a terminal status never changes, and every
change also goes to the job's event stream. A running job belongs to one execution (a token made when it was
claimed): whoever lost the job to another execution can no longer write to it.

Keys, all under `ripple:`:
    job:{id}                      hash: the record
    job:{id}:events               stream: state changes, progress and word of previews
    job:{id}:preview              animated WebP: the last preview, while the job runs, for an hour at most
    jobs, jobs:{status}           sorted sets of ids; ids sort by creation time
    owner:{key}:jobs[:{status}]   the same of one API key
    queue                         sorted set: queued ids in the order in which they start
    queued_ms                     estimated milliseconds of all queued jobs together
    ended                         sorted set: ids of ended jobs by the time they ended
    webhooks                      sorted set: ids of ended jobs whose webhook is due, by time
    webhook_secrets               hash: what signs the webhooks of an API key
    api_keys                      hash: digests of the tokens and their keys
    keys_in_use                   there from the first key on
    signing_secret                what signs links to files
    serving                       sorted set: ids whose files are being sent, until when
    retention                     there while a round of retention began less than a minute ago
    expired:{id}                  what is left of a job whose record was kept for its time
    idempotency:{digest}          hash: fingerprint and job of an Idempotency-Key
    history:{model}               list: what finished jobs took
    counters[:{day}]              hash: over all jobs ever, or those that ended on a day (UTC), by model
    workers                       sorted set: names of workers by when they count as dead
    worker_info                   hash: what each of them tells of itself
    upkeep                        name of the worker that does it, for a while
"""

import json
from collections.abc import Iterable, Mapping
from datetime import date, timedelta
from typing import Any

from redis import Redis
from redis.client import Pipeline

from ripple_core.contract import counters, scripts
from ripple_core.contract.counters import Count
from ripple_core.contract.errors import JobExpired, JobNotFound
from ripple_core.contract.job import TRANSITIONS, JobError, JobRecord, JobStatus, Progress, QueuePlace, Webhook, utc_now
from ripple_core.contract.metrics import JobMetrics
from ripple_core.contract.request import Priority
from ripple_core.contract.workers import WorkerInfo

PREFIX = "ripple:"
# As a limit.
ALL = -1
# So long at most: a preview goes with the end of its execution.
_PREVIEW_SECONDS = 3600
_WORKER_KEYS = [f"{PREFIX}workers", f"{PREFIX}worker_info"]
# How many jobs ahead of another are looked at one by one for its place in the queue.
_COUNTED_JOBS = 200
_JSON_FIELDS = {"request", "progress", "error", "last_failure", "metrics", "batch", "webhook"}
_KEEP_DAY = timedelta(days=8)
_RANKS: dict[Priority, int] = {"high": 0, "normal": 1, "low": 2}


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
        self._transition_script = redis.register_script(scripts.TRANSITION)
        self._progress_script = redis.register_script(scripts.PROGRESS)
        self._preview_script = redis.register_script(scripts.PREVIEW)
        self._forget_script = redis.register_script(scripts.FORGET)
        self._beat_script = redis.register_script(scripts.BEAT)
        self._live_workers_script = redis.register_script(scripts.LIVE_WORKERS)
        self._set_field_script = redis.register_script(scripts.SET_FIELD)
        self._take_upkeep_script = redis.register_script(scripts.TAKE_UPKEEP)
        self._place_script = redis.register_script(scripts.PLACE)

    def add(self, record: JobRecord, pipeline: Pipeline) -> None:
        """Queue the commands that store a new record; the caller executes the transaction."""
        pipeline.hset(_job_key(record.id), mapping=_encode(record.model_dump(mode="json")))
        for scope in (PREFIX, _owned(record.owner)) if record.owner else (PREFIX,):
            pipeline.zadd(f"{scope}jobs", {record.id: 0})
            pipeline.zadd(f"{scope}jobs:{record.status}", {record.id: 0})
        pipeline.zadd(f"{PREFIX}queue", {record.id: _RANKS[record.priority]})
        pipeline.incrby(f"{PREFIX}queued_ms", milliseconds(record.estimated_s))
        pipeline.xadd(events_key(record.id), {"event": "state", "data": _state_event(record.status)})

    def get(self, job_id: str) -> JobRecord:
        """Read one record.

        Raises:
            JobNotFound: when there is none.
            JobExpired: when it was kept for its time and then removed.
        """
        record = _decode(self.redis.hgetall(_job_key(job_id)))
        if record is None:
            if self.redis.exists(f"{PREFIX}expired:{job_id}"):
                raise JobExpired(job_id)
            raise JobNotFound(job_id)
        return record

    def page(
        self,
        status: JobStatus | None,
        after: str | None,
        limit: int,
        owner: str | None = None,
        oldest_first: bool = False,
    ) -> list[JobRecord]:
        """Records newest first (or oldest), from after the id `after`; of one status and one owner only, if given.

        `limit` may be ALL.
        """
        key = f"{_owned(owner) if owner else PREFIX}jobs"
        if status:
            key = f"{key}:{status}"
        if oldest_first:
            ids = self.redis.zrangebylex(key, f"({after}" if after else "-", "+", start=0, num=limit)
        else:
            ids = self.redis.zrevrangebylex(key, f"({after}" if after else "+", "-", start=0, num=limit)
        pipeline = self.redis.pipeline(transaction=False)
        for job_id in ids:
            pipeline.hgetall(_job_key(job_id.decode()))
        return [record for fields in pipeline.execute() if (record := _decode(fields)) is not None]

    def ids(self, status: JobStatus) -> list[str]:
        """Ids of all jobs of one status, oldest first."""
        return [job_id.decode() for job_id in self.redis.zrange(f"{PREFIX}jobs:{status}", 0, -1)]

    def counts(self) -> dict[JobStatus, int]:
        """Number of stored jobs by status."""
        pipeline = self.redis.pipeline(transaction=False)
        for status in JobStatus:
            pipeline.zcard(f"{PREFIX}jobs:{status}")
        return dict(zip(JobStatus, pipeline.execute(), strict=True))

    def claim(self, job_id: str, execution: str, worker: str) -> bool:
        """queued -> running for this execution of this worker, one attempt more; False when someone else was faster."""
        owner = f"{worker}/{execution}"
        fields = {"started_at": utc_now().isoformat(), "execution": owner}
        if self._transition(job_id, (JobStatus.QUEUED,), JobStatus.RUNNING, fields, attempts=1):
            return True
        # When the answer got lost, the client has asked twice, and it was this execution itself that was faster.
        record = self.get(job_id)
        return record.status == JobStatus.RUNNING and record.execution == owner

    def set_progress(self, job_id: str, owner: str, progress: Progress) -> bool:
        """Record progress; False when the job was cancelled or now belongs to another execution."""
        keys = [_job_key(job_id), events_key(job_id)]
        return bool(self._progress_script(keys=keys, args=[owner, progress.model_dump_json()]))

    def set_preview(self, job_id: str, owner: str, step: int, preview: bytes) -> None:
        """Keep an animated WebP made after a denoising step, unless the job is no longer this execution's."""
        self._preview_script(keys=_keys(job_id), args=[owner, preview, _PREVIEW_SECONDS, json.dumps({"step": step})])

    def preview(self, job_id: str) -> bytes | None:
        """The last one of a running job; None when there is none."""
        content: bytes | None = self.redis.get(_preview_key(job_id))
        return content

    def should_stop(self, job_id: str, owner: str) -> bool:
        """True when the job was cancelled or now belongs to another execution.

        Raises:
            JobNotFound: when it has been deleted.
        """
        record = self.get(job_id)
        return record.cancel_requested or record.status != JobStatus.RUNNING or record.execution != owner

    def succeed(self, job_id: str, owner: str, metrics: JobMetrics, total_steps: int) -> bool:
        """running -> succeeded; the metrics go into the counters that outlive every worker too."""
        progress = Progress(stage="done", step=total_steps, total_steps=total_steps, fraction=1.0, eta_s=0.0)
        fields = {"metrics": metrics.model_dump_json(), "progress": progress.model_dump_json()}
        counts = counters.measured(metrics)
        return self._finish(job_id, (JobStatus.RUNNING,), JobStatus.SUCCEEDED, fields, owner, counts=counts)

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
            self._set_field_script(keys=[_job_key(job_id)], args=["cancel_requested", "1"])
        return self.get(job_id)

    def return_to_queue(self, job_id: str, owner: str, failure: JobError | None) -> bool:
        """running -> queued.

        Args:
            job_id: of the job.
            owner: the execution that ran it.
            failure: how that ended; None when the worker hands the job back in good order, and the attempt does not
                count.
        """
        fields = {"progress": Progress().model_dump_json(), "execution": "", "queued_at": utc_now().isoformat()}
        if failure is None:
            return self._transition(job_id, (JobStatus.RUNNING,), JobStatus.QUEUED, fields, owner, attempts=-1)
        fields["last_failure"] = failure.model_dump_json()
        counts = [Count("attempts_failed", labels={"error_code": failure.code})]
        return self._transition(job_id, (JobStatus.RUNNING,), JobStatus.QUEUED, fields, owner, counts=counts)

    def delete(self, job_id: str) -> bool:
        """Forget an ended job altogether; False when it has not ended."""
        return self.expire(job_id, timedelta())

    def expire(self, job_id: str, keep: timedelta) -> bool:
        """Forget an ended job but for a tombstone, which stays for `keep`; False when it has not ended."""
        return bool(self._forget_script(keys=_keys(job_id), args=[PREFIX, job_id, int(keep.total_seconds())]))

    def ended_before(self, time: float, limit: int) -> list[str]:
        """Ids of jobs that ended before this time (seconds since 1970), oldest first."""
        ids = self.redis.zrangebyscore(f"{PREFIX}ended", "-inf", f"({time}", start=0, num=limit)
        return [job_id.decode() for job_id in ids]

    def known(self, job_ids: Iterable[str]) -> set[str]:
        """Those that have a record."""
        asked = list(job_ids)
        pipeline = self.redis.pipeline(transaction=False)
        for job_id in asked:
            pipeline.exists(_job_key(job_id))
        return {job_id for job_id, exists in zip(asked, pipeline.execute(), strict=True) if exists}

    def place(self, job_id: str) -> QueuePlace | None:
        """Where a job stands in the queue, or where one with the id "" would; None when it is not queued."""
        answer = self._place_script(keys=[f"{PREFIX}queue"], args=[PREFIX, job_id, _COUNTED_JOBS])
        if answer is None:
            return None
        position, seconds, unknown, num_workers = answer
        wait_s = None if unknown or not num_workers else float(seconds) / num_workers
        return QueuePlace(position=position, wait_s=wait_s)

    def wait_at_end(self) -> float | None:
        """Estimated seconds until a job of normal priority that came now would start; None while unknown."""
        place = self.place("")
        assert place is not None
        return place.wait_s

    def queued_work(self) -> tuple[int, int]:
        """Number of queued jobs, and their estimated milliseconds together."""
        pipeline = self.redis.pipeline()
        pipeline.zcard(f"{PREFIX}queue")
        pipeline.get(f"{PREFIX}queued_ms")
        num_jobs, work = pipeline.execute()
        return num_jobs, int(work or 0)

    def set_webhook(self, job_id: str, webhook: Webhook) -> None:
        """Record how telling an ended job's webhook went, unless the job has been deleted."""
        self._set_field_script(keys=[_job_key(job_id)], args=["webhook", webhook.model_dump_json()])

    def has_events_after(self, job_id: str, event_id: str) -> bool:
        """True when the job's stream goes on after this event."""
        return bool(self.redis.xrange(events_key(job_id), min=f"({event_id}", count=1))

    def counters(self, day: date | None = None) -> list[Count]:
        """All counters by model: since the store was made, or of a day (UTC) of the last seven."""
        return [counters.decode(name, value) for name, value in self.redis.hgetall(_counters_key(day)).items()]

    def beat(self, info: WorkerInfo, lifetime: timedelta) -> None:
        """Tell that a worker lives, and what it is at."""
        self._beat_script(keys=_WORKER_KEYS, args=[info.name, lifetime.total_seconds(), info.model_dump_json()])

    def forget_worker(self, worker: str) -> None:
        """Tell that a worker has stopped."""
        live, info = _WORKER_KEYS
        pipeline = self.redis.pipeline()
        pipeline.zrem(live, worker)
        pipeline.hdel(info, worker)
        pipeline.execute()

    def workers(self) -> list[WorkerInfo]:
        """All workers with a fresh heartbeat."""
        return [WorkerInfo.model_validate_json(info) for info in self._live_workers_script(keys=_WORKER_KEYS) if info]

    def live_workers(self) -> set[str]:
        """Names of all workers with a fresh heartbeat."""
        return {worker.name for worker in self.workers()}

    def take_upkeep(self, worker: str, turn: timedelta) -> bool:
        """Whether upkeep is this worker's; it stays that for `turn`, or until it is taken again."""
        lifetime = milliseconds(turn.total_seconds())
        return bool(self._take_upkeep_script(keys=[f"{PREFIX}upkeep"], args=[worker, lifetime]))

    def _finish(
        self,
        job_id: str,
        allowed: tuple[JobStatus, ...],
        status: JobStatus,
        fields: Mapping[str, str],
        owner: str = "",
        error: JobError | None = None,
        counts: Iterable[Count] = (),
    ) -> bool:
        stamped = {"finished_at": utc_now().isoformat(), **fields}
        counts = [counters.ended(status, error.code if error else ""), *counts]
        return self._transition(job_id, allowed, status, stamped, owner, error, counts=counts)

    def _transition(
        self,
        job_id: str,
        allowed: tuple[JobStatus, ...],
        status: JobStatus,
        fields: Mapping[str, str],
        owner: str = "",
        error: JobError | None = None,
        attempts: int = 0,
        counts: Iterable[Count] = (),
    ) -> bool:
        assert all(status in TRANSITIONS[before] for before in allowed)
        flat = [part for item in fields.items() for part in item]
        now = utc_now()
        ended_at = now.timestamp() if status.is_terminal else ""
        event = _state_event(status, error)
        allowed_list, added = f",{','.join(allowed)},", counters.encode(counts)
        keys = [*_keys(job_id), _counters_key(), _counters_key(now.date())]
        keep = int(_KEEP_DAY.total_seconds())
        arguments = [PREFIX, job_id, allowed_list, status, owner, event, ended_at, attempts, added, keep, *flat]
        outcome = self._transition_script(keys=keys, args=arguments)
        if outcome == b"missing":
            raise JobNotFound(job_id)
        return bool(outcome == b"ok")


def events_key(job_id: str) -> str:
    """The stream of a job's events, for readers that wait on it."""
    return f"{PREFIX}job:{job_id}:events"


def milliseconds(seconds: float | None) -> int:
    """An estimate as the store adds it up."""
    return int((seconds or 0) * 1000 + 0.5)


def _job_key(job_id: str) -> str:
    return f"{PREFIX}job:{job_id}"


def _counters_key(day: date | None = None) -> str:
    return f"{PREFIX}counters:{day.isoformat()}" if day else f"{PREFIX}counters"


def _preview_key(job_id: str) -> str:
    return f"{PREFIX}job:{job_id}:preview"


def _keys(job_id: str) -> list[str]:
    """All that there is of one job."""
    return [_job_key(job_id), events_key(job_id), _preview_key(job_id)]


def _owned(owner: str | None) -> str:
    return f"{PREFIX}owner:{owner}:"


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
    if not fields:
        return None
    text = {name.decode(): value.decode() for name, value in fields.items()}
    return JobRecord.model_validate(
        {name: json.loads(value) if name in _JSON_FIELDS else value or None for name, value in text.items()}
    )
