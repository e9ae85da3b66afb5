"""Which of the queues a worker takes the next job from."""

import time
from collections.abc import Callable, Collection, Sequence

from rq import Queue

from ripple_core.contract.queue import PRIORITIES, JobQueue, oldest_age_s


class QueueOrder:
    """The most urgent priority first; within it the job that has waited longest, with a head start for loaded models.

    The head start saves loading; since it is bounded, jobs of rarely used models wait that much longer and no more
    (`ripple bench queue` compares policies).

    Args:
        queue: of the messages.
        models: ids of the models whose jobs this worker takes.
        head_start_seconds: what a job of a loaded model is ahead.
        loaded: tells the ids of loaded models.
        clock: seconds since 1970.
    """

    def __init__(
        self,
        queue: JobQueue,
        models: Sequence[str],
        head_start_seconds: float,
        loaded: Callable[[], Collection[str]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._by_priority = [{model: queue.of_one(model, priority) for model in models} for priority in PRIORITIES]
        self._head_start_seconds = head_start_seconds
        self._loaded = loaded
        self._clock = clock

    def queues(self) -> list[Queue]:
        """All queues, the one to take from first at the beginning; empty ones keep their order.

        Raises:
            redis.RedisError: when Redis cannot be reached.
        """
        loaded, now = self._loaded(), self._clock()
        ordered: list[Queue] = []
        for queues in self._by_priority:
            if len(queues) == 1:
                ordered += queues.values()
                continue
            waited = {
                model: (oldest_age_s(queue, now) or 0.0) + (self._head_start_seconds if model in loaded else 0.0)
                for model, queue in queues.items()
            }
            ordered += [queues[model] for model in sorted(queues, key=lambda model: -waited[model])]
        return ordered
