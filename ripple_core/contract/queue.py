"""The RQ queues between server and workers, one for each priority; they carry job ids and nothing else."""

import secrets

from redis import Redis
from redis.client import Pipeline
from rq import Queue
from rq.intermediate_queue import IntermediateQueue
from rq.serializers import JSONSerializer

from ripple_core.contract.request import Priority

# In the order in which workers take from them.
QUEUE_NAMES: dict[Priority, str] = {"high": "ripple-high", "normal": "ripple", "low": "ripple-low"}
# By import path, so that the server never imports the worker.
TASK = "worker.task.run_job"
_NO_TIMEOUT = -1
_KEEP_SECONDS = 3600


class JobQueue:
    """Sends job ids to the workers."""

    def __init__(self, redis: Redis) -> None:
        # JSON, not pickle: whoever can write to Redis must not be able to run code in a worker.
        self._queues = {
            priority: Queue(name, connection=redis, serializer=JSONSerializer) for priority, name in QUEUE_NAMES.items()
        }

    @property
    def in_order(self) -> list[Queue]:
        """RQ's queues, the most urgent first."""
        return list(self._queues.values())

    def send(self, job_id: str, priority: Priority, pipeline: Pipeline | None = None) -> None:
        """Append the job, as part of a transaction if one is given."""
        message = Queue.prepare_data(
            TASK,
            args=(job_id,),
            timeout=_NO_TIMEOUT,
            result_ttl=0,
            failure_ttl=_KEEP_SECONDS,
            description="video",
            # So that the list of messages alone says which jobs wait; a job may be sent more than once.
            job_id=f"{job_id}-{secrets.token_hex(4)}",
        )
        # Not enqueue(): that one opens a transaction of its own inside the caller's.
        self._queues[priority].enqueue_many([message], pipeline=pipeline)

    def num_messages(self) -> int:
        """Messages that no worker has taken yet."""
        return sum(queue.count for queue in self._queues.values())

    def waiting(self) -> set[str]:
        """Job ids that some worker will still receive."""
        found: set[str] = set()
        for queue in self._queues.values():
            taken = IntermediateQueue(queue.key, queue.connection).get_job_ids()
            found |= {message_id.rpartition("-")[0] for message_id in (*queue.job_ids, *taken)}
        return found
