"""The RQ queues between server and workers, one for each priority of each model; they carry job ids only."""

import secrets
from collections.abc import Iterable
from typing import Any, get_args

from redis import Redis
from redis.client import Pipeline
from rq import Queue
from rq.intermediate_queue import IntermediateQueue
from rq.serializers import JSONSerializer

from ripple_core.contract.job import accepted_at
from ripple_core.contract.request import Priority

# In the order in which workers take from them.
PRIORITIES: tuple[Priority, ...] = get_args(Priority)
# By import path, so that the server never imports the worker.
TASK = "worker.task.run_job"
# RQ's set of the keys of all queues there have ever been, and what the keys of ours begin with.
QUEUE_KEYS = Queue.redis_queues_keys
KEY_PREFIX = f"{Queue.redis_queue_namespace_prefix}ripple-"
_NO_TIMEOUT = -1
_KEEP_SECONDS = 3600


def queue_name(model_id: str, priority: Priority) -> str:
    """RQ's name of the queue."""
    return f"ripple-{priority}:{model_id}"


class JobQueue:
    """Sends job ids to the workers."""

    def __init__(self, redis: Redis) -> None:
        self._redis: Any = redis

    def of(self, model_ids: Iterable[str]) -> list[Queue]:
        """RQ's queues of these models: the most urgent first, and within a priority in the order given."""
        ids = list(model_ids)
        return [self.of_one(model_id, priority) for priority in PRIORITIES for model_id in ids]

    def of_one(self, model_id: str, priority: Priority) -> Queue:
        """RQ's queue of one model and priority."""
        # JSON, not pickle: whoever can write to Redis must not be able to run code in a worker.
        return Queue(queue_name(model_id, priority), connection=self._redis, serializer=JSONSerializer)

    def send(
        self,
        job_id: str,
        model_id: str,
        priority: Priority,
        pipeline: Pipeline | None = None,
        at_front: bool = False,
    ) -> None:
        """Append the job to its model's queue or put it at the front, as part of a transaction if one is given."""
        message = Queue.prepare_data(
            TASK,
            args=(job_id,),
            timeout=_NO_TIMEOUT,
            result_ttl=0,
            failure_ttl=_KEEP_SECONDS,
            description="video",
            # So that the list of messages alone says which jobs wait; a job may be sent more than once.
            job_id=f"{job_id}-{secrets.token_hex(4)}",
            at_front=at_front,
        )
        # Not enqueue(): that one opens a transaction of its own inside the caller's.
        self.of_one(model_id, priority).enqueue_many([message], pipeline=pipeline)

    def num_messages_by_queue(self) -> dict[str, int]:
        """Messages no worker has taken yet, by every queue there has ever been, e.g. {"ripple-high:some/model": 2}."""
        keys = self._keys()
        pipeline = self._redis.pipeline(transaction=False)
        for key in keys:
            pipeline.llen(key)
        names = [key.removeprefix(Queue.redis_queue_namespace_prefix) for key in keys]
        return dict(zip(names, pipeline.execute(), strict=True))

    def waiting(self) -> set[str]:
        """Job ids that some worker will still receive."""
        pipeline = self._redis.pipeline(transaction=False)
        for key in self._keys():
            # In this order a message that moves meanwhile is seen twice, not missed.
            pipeline.lrange(key, 0, -1)
            pipeline.lrange(IntermediateQueue.get_intermediate_queue_key(key), 0, -1)
        return {_job_id(message_id.decode()) for message_ids in pipeline.execute() for message_id in message_ids}

    def next_jobs(self, model_id: str, priority: Priority, limit: int) -> dict[str, str]:
        """Ids of the jobs at the head of a queue, and the message of each."""
        message_ids = self.of_one(model_id, priority).get_job_ids(0, limit)
        return {_job_id(message_id): message_id for message_id in message_ids}

    def remove(self, model_id: str, priority: Priority, message_id: str) -> None:
        """Take a message out of its queue: somebody has the job already."""
        message = self.of_one(model_id, priority).fetch_job(message_id)
        if message is not None:
            message.delete()

    def _keys(self) -> list[str]:
        keys = (key.decode() for key in self._redis.smembers(QUEUE_KEYS))
        return sorted(key for key in keys if key.startswith(KEY_PREFIX))


def oldest_ages_s(queues: Iterable[Queue], now: float) -> list[float | None]:
    """For each queue the seconds since the job at its head was accepted, None when it is empty.

    Args:
        queues: some of `JobQueue.of`.
        now: seconds since 1970.
    """
    asked = list(queues)
    pipeline = asked[0].connection.pipeline(transaction=False)
    for queue in asked:
        pipeline.lindex(queue.key, 0)
    return [now - accepted_at(_job_id(head.decode())) if head else None for head in pipeline.execute()]


def _job_id(message_id: str) -> str:
    return message_id.rpartition("-")[0]
