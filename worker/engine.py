"""The parent's handle on its child process: starts it, follows a job, replaces it when it dies."""

import logging
import multiprocessing
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

from ripple_core.contract.errors import WorkerLost
from ripple_core.contract.job import JobError, Progress
from worker.child import run_child
from worker.messages import EndAnswer, Failed, Generate, Stop, Stopped
from worker.settings import WorkerSettings

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.1


class Engine:
    """One child process that owns the device. Spawned, never forked: CUDA does not survive a fork."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._process: SpawnProcess | None = None
        self._connection: Connection | None = None

    @property
    def pid(self) -> int | None:
        """Process id of the child, None when there is none."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Spawn the child unless it lives."""
        if self._process is not None and self._process.is_alive():
            return
        self.stop()
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        # A daemon ends with its parent.
        self._process = context.Process(target=run_child, args=(theirs, self._settings), daemon=True)
        self._process.start()
        theirs.close()

    def stop(self) -> None:
        """End the child, gently first."""
        if self._connection is not None:
            self._connection.close()
        if self._process is not None:
            self._process.join(timeout=2)
            if self._process.is_alive():
                self._process.kill()
                self._process.join()
        self._process = self._connection = None

    def run(self, job: Generate, on_progress: Callable[[Progress], None], stop_wanted: Callable[[], bool]) -> EndAnswer:
        """Generate one video.

        Args:
            job: what to generate.
            on_progress: called for every progress message.
            stop_wanted: asked several times a second; once True, the child is told to stop after its denoising
                step, and killed if it does not within the grace time.

        Returns:
            How it ended. A child that dies gives Failed with code worker_lost, and the next run starts a new one.
        """
        self.start()
        assert self._connection is not None
        stop_sent_at: float | None = None
        try:
            self._connection.send(job)
            while True:
                if self._connection.poll(_POLL_SECONDS):
                    message = self._connection.recv()
                    if not isinstance(message, Progress):
                        return message
                    on_progress(message)
                if stop_sent_at is None and stop_wanted():
                    self._connection.send(Stop())
                    stop_sent_at = time.monotonic()
                elif stop_sent_at and time.monotonic() - stop_sent_at > self._settings.cancel_grace_seconds:
                    logger.warning("the child did not stop in time and is killed")
                    self._kill()
                    return Stopped()
        except (EOFError, OSError):
            exit_code = self._kill()
            return Failed(JobError(code=WorkerLost.code, message=_death_message(exit_code)))
        except BaseException:
            # The child is in the middle of a job nobody follows any more: its answers must not pass for the next one's.
            self._kill()
            raise

    def _kill(self) -> int | None:
        assert self._process is not None
        self._process.kill()
        self._process.join()
        exit_code = self._process.exitcode
        self.stop()
        return exit_code


def _death_message(exit_code: int | None) -> str:
    hint = " It was killed, most likely for lack of memory." if exit_code == -9 else ""
    return f"The process that generates videos ended with exit code {exit_code}.{hint} Try again with a smaller video."
