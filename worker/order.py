"""Which of the queues a worker takes the next job from."""

import time
from collections.abc import Callable, Collection, Sequence

from rq import Queue

from ripple_core.contract.queue import PRIORITIES, JobQueue, oldest_ages_s

# Time for another worker that has the job's model loaded to take it; much shorter than loading.
GRACE_SECONDS = 2.0


class QueueOrder:
    """The most urgent priority first; within it the job that has waited longest, with a head start for loaded models.

    The head start saves loading; since it is bounded, jobs of rarely used models wait that much longer and no more. A
    job whose model only others have loaded is left to them for a moment (`ripple bench queue` compares policies, this
    one under the name head_start_grace).

    Args:
        queue: of the messages.
        models: ids of the models whose jobs this worker takes.
        head_start_seconds: what a job of a loaded model is ahead.
        loaded: tells the ids of models loaded here.
        loaded_elsewhere: tells those loaded by other workers that take jobs.
        clock: seconds since 1970.
    """

    def __init__(
        self,
        queue: JobQueue,
        models: Sequence[str],
        head_start_seconds: float,
        loaded: Callable[[], Collection[str]],
        loaded_elsewhere: Callable[[], Collection[str]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._by_priority = [{model: queue.of_one(model, priority) for model in models} for priority in PRIORITIES]
        self._models = models
        self._head_start_seconds = head_start_seconds
        self._loaded = loaded
        self._loaded_elsewhere = loaded_elsewhere
        self._clock = clock

    def queues(self) -> list[Queue]:
        """Those to take from now, the first one first; none while all that waits is left to others.

        Raises:
            redis.RedisError: when Redis cannot be reached.
        """
        if len(self._models) == 1:
            return [queue for queues in self._by_priority for queue in queues.values()]
        loaded, elsewhere, now = self._loaded(), self._loaded_elsewhere(), self._clock()
        ordered: list[Queue] = []
        for queues in self._by_priority:
            waited = {model: age or 0.0 for model, age in zip(queues, oldest_ages_s(queues.values(), now), strict=True)}
            for model in loaded:
                waited[model] += self._head_start_seconds
            for model in elsewhere:
                if model not in loaded and waited[model] < GRACE_SECONDS:
                    del waited[model]
            ordered += [queues[model] for model in sorted(waited, key=waited.__getitem__, reverse=True)]
        return ordered
