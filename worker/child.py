"""The spawned process that owns the device: loads models and keeps them between jobs."""

import ctypes
import errno
import logging
import os
import signal
import sys
import time
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

from ripple_core.contract.errors import GenerationCancelled, GenerationFailed, OutOfMemory, RippleError, StorageFull
from ripple_core.contract.job import JobError, Progress
from ripple_core.contract.metrics import JobMetrics, Retry
from ripple_core.contract.model_config import load_model_configs
from worker.messages import (
    Answer,
    Ended,
    Failed,
    Finished,
    Generate,
    Idle,
    Loaded,
    Ready,
    Reported,
    Stop,
    Stopped,
    Video,
)
from worker.settings import WorkerSettings

logger = logging.getLogger(__name__)

# After some errors of a GPU no call succeeds in this process any more.
EXIT_DEVICE_BROKEN = 70
_PR_SET_PDEATHSIG = 1


def run_child(connection: Connection, settings: WorkerSettings) -> None:
    """Answer Generate messages until the parent closes the pipe."""
    die_with_parent()
    # Signals reach whole process groups; it is the parent that decides when we end.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    logging.basicConfig(level=settings.log_level)
    try:
        _serve(connection, settings)
    except (EOFError, BrokenPipeError):
        return


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent dies, however that happens; on Linux only."""
    if not sys.platform.startswith("linux"):
        return
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _serve(connection: Connection, settings: WorkerSettings) -> None:
    generator = _Generator(connection, settings)
    generator.preload()
    connection.send(Ready())
    while True:
        message = connection.recv()
        # A Stop that arrives after its job has ended finds nothing to stop.
        if isinstance(message, Generate):
            generator.generate(message)
            connection.send(Idle())


@dataclass
class _Stops:
    """The executions that are to stop, as far as the pipe has told."""

    connection: Connection
    told: set[str] = field(default_factory=set)

    def has(self, execution: str) -> bool:
        while self.connection.poll():
            message = self.connection.recv()
            if isinstance(message, Stop):
                self.told.add(message.execution)
        return execution in self.told


class _Generator:
    """Holds the loaded models."""

    def __init__(self, connection: Connection, settings: WorkerSettings) -> None:
        # Seconds to import, and CUDA begins here: not in the parent, which imports this module.
        from ripple_core.generate.model_cache import ModelCache

        self._connection = connection
        self._settings = settings
        self._configs = {config.spec.id: config for config in load_model_configs(settings)}
        self._models = ModelCache(
            list(self._configs.values()), settings.device, settings.dtype, settings.model_memory_bytes
        )

    def preload(self) -> None:
        """Load what is configured to be warm; a model that fails is left to the jobs that ask for it."""
        from ripple_core.generate.warm_up import warm_up

        for model_id, config in self._configs.items():
            if config.preload:
                try:
                    model = self._models.get(model_id)
                    if config.warm_up:
                        warm_up(model)
                except RippleError as error:
                    logger.error("%s could not be preloaded: %s", model_id, error)
                self._connection.send(Loaded(self._models.loaded))

    def generate(self, task: Generate) -> None:
        """Run the videos; whatever goes wrong becomes an answer."""
        stops = _Stops(self._connection)
        try:
            answers = self._answers(task, stops)
        # Border of the process: the parent gets an answer whatever happens.
        except Exception as error:  # noqa: BLE001
            _end_if_device_is_broken(error)
            answers = [_failed(error)] * len(task.videos)
        for video, answer in zip(task.videos, answers, strict=True):
            self._connection.send(Ended(video.execution, answer))

    def _answers(self, task: Generate, stops: _Stops) -> list[Answer]:
        load_began, model_id = time.monotonic(), task.videos[0].request.model
        load_seconds = 0.0
        if model_id not in self._models.loaded:
            for video in task.videos:
                steps = video.request.num_inference_steps
                self._connection.send(Reported(video.execution, Progress(stage="load", total_steps=steps)))
            # From when the job was sent: a child that has just been spawned first imports torch and diffusers.
            load_began = min(load_began, task.sent_at)
        model = self._models.get(model_id)
        if load_began == task.sent_at:
            load_seconds = time.monotonic() - load_began
            self._connection.send(Loaded(self._models.loaded))
        results = self._run(model, task.videos, stops)
        # Models that wait for their turn are no reason to refuse a video.
        short = [index for index, result in enumerate(results) if isinstance(result, OutOfMemory)]
        if short and self._models.keep_only(model_id):
            self._connection.send(Loaded(self._models.loaded))
            again = self._run(model, [task.videos[index] for index in short], stops)
            retry = Retry(reason="out_of_memory", remedy="unloaded_models")
            for index, result in zip(short, again, strict=True):
                results[index] = _with_retry(result, retry)
        return [_answer(result, load_seconds) for result in results]

    def _run(self, model: Any, videos: Any, stops: _Stops) -> list[JobMetrics | RippleError]:
        return [self._run_one(model, video, stops) for video in videos]

    def _run_one(self, model: Any, video: Video, stops: _Stops) -> JobMetrics | RippleError:
        from ripple_core.generate import generate_video

        def on_progress(progress: Progress) -> None:
            self._connection.send(Reported(video.execution, progress))

        def should_stop() -> bool:
            return stops.has(video.execution)

        settings = self._settings
        try:
            return generate_video(
                model,
                video.request,
                video.folder,
                on_progress,
                should_stop,
                video.image,
                settings.lora_dir,
                retry_dense=settings.retry_invalid_output,
                retry_tiling=settings.retry_out_of_memory,
            )
        except RippleError as error:
            return error


def _with_retry(result: JobMetrics | RippleError, retry: Retry) -> JobMetrics | RippleError:
    if isinstance(result, RippleError):
        return result
    return result.model_copy(update={"retries": [retry, *result.retries]})


def _answer(result: JobMetrics | RippleError, load_seconds: float) -> Answer:
    if isinstance(result, RippleError):
        return _failed(result)
    latency = result.latency_s.model_copy(update={"load": result.latency_s.load + load_seconds})
    return Finished(result.model_copy(update={"latency_s": latency}))


def _failed(error: Exception) -> Answer:
    if isinstance(error, GenerationCancelled):
        return Stopped()
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        error = StorageFull()
    if isinstance(error, RippleError):
        logger.warning("job failed: %s", error)
        return Failed(JobError(code=error.code, message=str(error)))
    logger.error("job failed", exc_info=error)
    message_line = (str(error).splitlines() or [""])[0]
    return Failed(JobError(code=GenerationFailed.code, message=f"{type(error).__name__}: {message_line}"[:500]))


def _end_if_device_is_broken(error: Exception) -> None:
    import torch

    if isinstance(error, torch.AcceleratorError):
        logger.critical("the device is out of order; the worker starts another process", exc_info=error)
        logging.shutdown()
        os._exit(EXIT_DEVICE_BROKEN)
