"""Progress, previews and questions to the job store that may get lost: a job does not wait for Redis."""

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from redis import RedisError

from ripple_core.contract.errors import JobNotFound
from ripple_core.contract.job import Progress
from ripple_core.contract.store import JobStore

logger = logging.getLogger(__name__)

T = TypeVar("T")

# After a failure nobody tries for so long; each try may take as long as the connection's time-out.
_QUIET_SECONDS = 2.0


class Reports:
    """What a running job tells and asks.

    Args:
        store: on a connection that gives up within a second or so.
    """

    def __init__(self, store: JobStore) -> None:
        self._store = store
        self._quiet_until = 0.0

    def set_progress(self, job_id: str, owner: str, progress: Progress) -> bool:
        """False when the job was cancelled or belongs to another execution, as far as can be known."""
        return self._try(lambda: self._store.set_progress(job_id, owner, progress), otherwise=True)

    def set_preview(self, job_id: str, owner: str, step: int, preview: bytes) -> None:
        """Show what the job looks like after a denoising step."""
        self._try(lambda: self._store.set_preview(job_id, owner, step, preview), otherwise=None)

    def should_stop(self, job_id: str, owner: str) -> bool:
        """True when the job was cancelled or belongs to another execution, as far as can be known."""
        try:
            return self._try(lambda: self._store.should_stop(job_id, owner), otherwise=False)
        except JobNotFound:
            return True

    def _try(self, call: Callable[[], T], otherwise: T) -> T:
        """What the call returns, or `otherwise` when Redis is away, or was a moment ago."""
        if time.monotonic() < self._quiet_until:
            return otherwise
        try:
            return call()
        except RedisError as error:
            self._quiet_until = time.monotonic() + _QUIET_SECONDS
            logger.warning("Redis cannot be reached, and the job goes on: %s", error)
            return otherwise
