"""The threads beside the job: one tells that the worker lives, one puts right what others left behind."""

import logging
import time
from collections.abc import Callable
from datetime import timedelta
from threading import Event, Thread

from redis import RedisError

from ripple_core.contract.store import JobStore
from ripple_core.contract.upkeep import Upkeep
from worker.settings import WorkerSettings
from worker.status import WorkerStatus

logger = logging.getLogger(__name__)

_TOGETHER_SECONDS = 0.1
_LAST_BEAT_SECONDS = 5.0


class Keeper:
    """Heartbeat and upkeep until the worker ends; Redis may come and go.

    Args:
        store: on a connection that gives up within seconds.
        upkeep: one round of it.
        status: what the heartbeat tells.
        settings: how often.
    """

    def __init__(self, store: JobStore, upkeep: Upkeep, status: WorkerStatus, settings: WorkerSettings) -> None:
        self._store = store
        self._upkeep = upkeep
        self._status = status
        self._settings = settings
        self._ended = Event()
        self._reached_since = time.monotonic()
        self._heart = Thread(target=self._beat_on, daemon=True, name="heartbeat")

    def start(self) -> None:
        """Tell for the first time, then start the threads.

        Raises:
            RedisError: when Redis cannot be reached.
        """
        self._beat()
        self._heart.start()
        Thread(target=self._keep_up, daemon=True, name="upkeep").start()

    def stop(self) -> None:
        """End the threads, and tell that the worker has stopped."""
        self._ended.set()
        self._status.changed.set()
        # A last beat that is under way would bring the worker to life again.
        self._heart.join(_LAST_BEAT_SECONDS)
        try:
            self._store.forget_worker(self._status.name)
        except RedisError as error:
            logger.warning("Redis cannot be reached; this worker will count as dead in time: %s", error)

    def _beat(self) -> None:
        self._store.beat(self._status.info(), timedelta(seconds=self._settings.lost_after_seconds))

    def _beat_on(self) -> None:
        while not self._ended.is_set():
            self._status.changed.wait(self._settings.heartbeat_seconds)
            # Changes that follow one another at once are told together.
            if not self._ended.wait(_TOGETHER_SECONDS):
                self._status.changed.clear()
                self._try(self._beat)

    def _keep_up(self) -> None:
        """In a thread of its own, since removing many files may take longer than silence."""
        while not self._ended.wait(self._settings.heartbeat_seconds):
            # After an outage of Redis, or at our own start, the heartbeats of others may still be on their way.
            if time.monotonic() - self._reached_since > self._settings.lost_after_seconds:
                self._try(self._upkeep.run)

    def _try(self, what: Callable[[], None]) -> None:
        try:
            what()
        except RedisError as error:
            self._reached_since = time.monotonic()
            logger.warning("Redis cannot be reached: %s", error)
