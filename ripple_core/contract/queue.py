"""The RQ queue between server and workers; it carries job ids and nothing else."""

from redis import Redis
from redis.client import Pipeline
from rq import Queue
from rq.intermediate_queue import IntermediateQueue
from rq.serializers import JSONSerializer

QUEUE_NAME = "ripple"
# By import path, so that the server never imports the worker.
TASK = "worker.task.run_job"
_NO_TIMEOUT = -1
_KEEP_SECONDS = 3600


class JobQueue:
    """Sends job ids to the workers."""

    def __init__(self, redis: Redis) -> None:
        # JSON, not pickle: whoever can write to Redis must not be able to run code in a worker.
        self.rq = Queue(QUEUE_NAME, connection=redis, serializer=JSONSerializer)

    def send(self, job_id: str, pipeline: Pipeline | None = None) -> None:
        """Append the job, as part of a transaction if one is given."""
        message = Queue.prepare_data(
            TASK,
            args=(job_id,),
            timeout=_NO_TIMEOUT,
            result_ttl=0,
            failure_ttl=_KEEP_SECONDS,
            description="video",
        )
        # Not enqueue(): that one opens a transaction of its own inside the caller's.
        self.rq.enqueue_many([message], pipeline=pipeline)

    def waiting(self) -> set[str]:
        """Job ids that some worker will still receive."""
        taken = IntermediateQueue(self.rq.key, self.rq.connection).get_job_ids()
        jobs = self.rq.job_class.fetch_many(
            [*self.rq.job_ids, *taken], connection=self.rq.connection, serializer=JSONSerializer
        )
        return {job.args[0] for job in jobs if job is not None}
