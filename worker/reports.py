"""Progress, previews and questions to the job store that may get lost: a job does not wait for Redis."""

import logging
import time

from redis import RedisError

from ripple_core.contract.errors import JobNotFound
from ripple_core.contract.job import Progress
from ripple_core.contract.store import JobStore

logger = logging.getLogger(__name__)

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
        if time.monotonic() < self._quiet_until:
            return True
        try:
            return self._store.set_progress(job_id, owner, progress)
        except RedisError as error:
            self._fall_quiet(error)
            return True

    def set_preview(self, job_id: str, owner: str, step: int, preview: bytes) -> None:
        """Show what the job looks like after a denoising step."""
        if time.monotonic() < self._quiet_until:
            return
        try:
            self._store.set_preview(job_id, owner, step, preview)
        except RedisError as error:
            self._fall_quiet(error)

    def should_stop(self, job_id: str, owner: str) -> bool:
        """True when the job was cancelled or belongs to another execution, as far as can be known."""
        if time.monotonic() < self._quiet_until:
            return False
        try:
            return self._store.should_stop(job_id, owner)
        except RedisError as error:
            self._fall_quiet(error)
            return False
        except JobNotFound:
            return True

    def _fall_quiet(self, error: RedisError) -> None:
        self._quiet_until = time.monotonic() + _QUIET_SECONDS
        logger.warning("Redis cannot be reached, and the job goes on: %s", error)
