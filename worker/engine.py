"""The parent's handle on its child process: starts it, follows its videos, replaces it when it dies or hangs."""

import logging
import multiprocessing
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Literal, Protocol

from ripple_core.child_process import EXIT_DEVICE_BROKEN
from ripple_core.contract.errors import Stalled, WorkerLost
from ripple_core.contract.job import JobError, Progress, Stage
from worker.child import run_child
from worker.messages import (
    Answer,
    Ended,
    Failed,
    FromChild,
    Generate,
    Idle,
    Loaded,
    Previewed,
    Ready,
    Reported,
    Stop,
    Stopped,
)
from worker.settings import WorkerSettings

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.1

LossReason = Literal["died", "stalled", "not_stopped", "abandoned"]
Child = Callable[[Connection, WorkerSettings], None]


class Follower(Protocol):
    """Follows one execution."""

    def on_progress(self, progress: Progress) -> None:
        """Called for every progress message."""

    def on_preview(self, step: int, preview: bytes) -> None:
        """Called with an animated WebP every few denoising steps, if the request asks for that."""

    def stop_wanted(self) -> bool:
        """Asked several times a second; once True, the child is told to stop after its denoising step."""

    def on_end(self, answer: Answer) -> None:
        """Called once."""


class Engine:
    """One child process that owns the device. Spawned, never forked: CUDA does not survive a fork.

    Args:
        settings: handed to the child.
        child: what the process runs.
        on_loaded: called with the ids of the models in its memory whenever they change.
        on_lost: called with a word for why whenever the child ended that should not have.
        is_over: asked while waiting; once True the child is killed at once.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        child: Child = run_child,
        on_loaded: Callable[[tuple[str, ...]], None] = lambda _: None,
        on_lost: Callable[[LossReason], None] = lambda _: None,
        is_over: Callable[[], bool] = lambda: False,
    ) -> None:
        self._settings = settings
        self._child = child
        self._on_loaded = on_loaded
        self._on_lost = on_lost
        self._is_over = is_over
        self._process: SpawnProcess | None = None
        self._connection: Connection | None = None

    @property
    def pid(self) -> int | None:
        """Process id of the child, None when there is none."""
        # Asked by other threads too.
        process = self._process
        return process.pid if process else None

    def start(self) -> None:
        """Spawn the child unless it lives. Call it in the main thread: the child dies with the thread."""
        if self._process is not None and self._process.is_alive():
            return
        self.stop()
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=self._child, args=(theirs, self._settings), daemon=True)
        self._process.start()
        theirs.close()

    def wait_until_ready(self, stop_wanted: Callable[[], bool]) -> None:
        """Return when all that is to be preloaded is loaded, failed or took too long, or when no longer wanted."""
        self.start()
        assert self._connection is not None
        deadline = time.monotonic() + self._settings.load_seconds
        with suppress(EOFError, OSError):
            while not stop_wanted() and time.monotonic() < deadline:
                if self._connection.poll(_POLL_SECONDS):
                    message: FromChild = self._connection.recv()
                    if isinstance(message, Loaded):
                        self._on_loaded(message.model_ids)
                    if isinstance(message, Ready):
                        return

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

    def run(self, task: Generate, followers: Mapping[str, Follower]) -> None:
        """Generate videos that share a run.

        Every follower hears of the end of its execution. A child that dies gives Failed with code worker_lost to all
        that have not ended, one that hangs Failed with code stalled; the next child starts at once.

        Args:
            task: what to generate.
            followers: by execution.
        """
        # A child that had died before, unnoticed, says nothing; that is no fault of these jobs.
        if not self._try(task, followers, is_last=False):
            self._try(task, followers, is_last=True)
        if not self._is_over():
            self.start()

    def _try(self, task: Generate, followers: Mapping[str, Follower], is_last: bool) -> bool:
        """False when the child died without a word, and it was not the last try."""
        self.start()
        assert self._connection is not None
        run = _Run(self._connection, self._settings, dict(followers), self._on_loaded)
        try:
            self._connection.send(task)
            while not run.is_idle:
                # All there is: taking a message may have taken long, and what came meanwhile counts.
                wait_seconds = _POLL_SECONDS
                while self._connection.poll(wait_seconds):
                    run.take(self._connection.recv())
                    wait_seconds = 0.0
                if self._is_over() or run.is_past_grace():
                    logger.warning("the child did not stop in time and is killed")
                    self._kill("not_stopped")
                    run.end_all(Stopped())
                    break
                run.stop_where_wanted()
                if (stalled := run.stalled()) is not None:
                    logger.warning("the child is killed: %s", stalled)
                    self._kill("stalled")
                    run.end_all(Failed(JobError(code=Stalled.code, message=stalled)))
                    break
        except (EOFError, OSError):
            exit_code = self._kill("died")
            if not (run.has_heard or is_last):
                return False
            run.end_all(Failed(JobError(code=WorkerLost.code, message=_death_message(exit_code))))
        except BaseException:
            # The child is in the middle of a job nobody follows any more: its answers must not pass for the next one's.
            self._kill("abandoned")
            raise
        return True

    def _kill(self, why: LossReason) -> int | None:
        assert self._process is not None
        self._process.kill()
        self._process.join()
        exit_code = self._process.exitcode
        self.stop()
        self._on_loaded(())
        self._on_lost(why)
        return exit_code


class _Run:
    """The executions of one Generate that have not ended, and what is known of them."""

    def __init__(
        self,
        connection: Connection,
        settings: WorkerSettings,
        followers: dict[str, Follower],
        on_loaded: Callable[[tuple[str, ...]], None],
    ) -> None:
        self.is_idle = False
        self.has_heard = False
        self._connection = connection
        self._settings = settings
        self._followers = followers
        self._on_loaded = on_loaded
        self._stop_sent_at: dict[str, float] = {}
        self._stage: Stage = "load"
        self._heard_at = time.monotonic()

    def take(self, message: FromChild) -> None:
        # Not what was said before the task came.
        self.has_heard |= isinstance(message, Reported | Ended)
        if isinstance(message, Reported):
            self._stage = message.progress.stage
            if message.execution in self._followers:
                self._followers[message.execution].on_progress(message.progress)
        elif isinstance(message, Previewed):
            if message.execution in self._followers:
                self._followers[message.execution].on_preview(message.step, message.preview)
        elif isinstance(message, Ended):
            self._end(message.execution, message.answer)
        elif isinstance(message, Loaded):
            self._on_loaded(message.model_ids)
        elif isinstance(message, Idle):
            self.is_idle = True
        # Not before: an end is told to the store, which may be slow.
        self._heard_at = time.monotonic()

    def stop_where_wanted(self) -> None:
        for execution, follower in self._followers.items():
            if execution not in self._stop_sent_at and follower.stop_wanted():
                self._connection.send(Stop(execution))
                self._stop_sent_at[execution] = time.monotonic()

    def is_past_grace(self) -> bool:
        """Whether all that is left was told to stop, too long ago."""
        if not self._followers or not self._followers.keys() <= self._stop_sent_at.keys():
            return False
        last = max(self._stop_sent_at[execution] for execution in self._followers)
        return time.monotonic() - last > self._settings.cancel_grace_seconds

    def stalled(self) -> str | None:
        """What to say when nothing has been heard for longer than the stage may take."""
        most = self._settings.load_seconds if self._stage == "load" else self._settings.stall_seconds
        if time.monotonic() - self._heard_at <= most:
            return None
        return f"Nothing happened in stage {self._stage} for {most:g} s, and the job was given up."

    def end_all(self, answer: Answer) -> None:
        for execution in list(self._followers):
            self._end(execution, answer)

    def _end(self, execution: str, answer: Answer) -> None:
        if (follower := self._followers.pop(execution, None)) is not None:
            follower.on_end(answer)


def _death_message(exit_code: int | None) -> str:
    hint = ""
    if exit_code == -9:
        hint = " It was killed, most likely for lack of memory: a smaller video may do."
    elif exit_code == EXIT_DEVICE_BROKEN:
        hint = " The device reported an error after which nothing more can run on it; the worker's log has it."
    return f"The process that generates videos ended with exit code {exit_code}.{hint}"
