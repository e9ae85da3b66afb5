"""The spawned process that owns the device: loads models and keeps them between jobs."""

import logging
import os
import time
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

from structlog.contextvars import bound_contextvars

from ripple_core.child_process import EXIT_DEVICE_BROKEN, die_with, in_a_line, leave_signals_to_parent
from ripple_core.contract.errors import GenerationCancelled, GenerationFailed, OutOfMemory, RippleError
from ripple_core.contract.job import JobError, Progress
from ripple_core.contract.metrics import JobMetrics, Retry
from ripple_core.contract.model_config import load_model_configs
from ripple_core.logs import configure_logging, configure_pipeline_logging
from worker.messages import (
    Answer,
    Ended,
    Failed,
    Finished,
    Generate,
    Idle,
    Loaded,
    Previewed,
    Ready,
    Reported,
    Stop,
    Stopped,
    Video,
)
from worker.settings import WorkerSettings

if TYPE_CHECKING:
    from ripple_core.generate import LoadedModel, VideoJob

logger = logging.getLogger(__name__)


def run_child(connection: Connection, settings: WorkerSettings) -> None:
    """Answer Generate messages until the parent closes the pipe."""
    die_with(os.getppid())
    leave_signals_to_parent()
    configure_logging(settings.log_level, settings.log_format)
    try:
        _serve(connection, settings)
    except (EOFError, BrokenPipeError):
        return


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


class _Generator:
    """Holds the loaded models."""

    def __init__(self, connection: Connection, settings: WorkerSettings) -> None:
        # Seconds to import, and CUDA begins here: not in the parent, which imports this module.
        from ripple_core.generate.model_cache import ModelCache

        configure_pipeline_logging()
        self._connection = connection
        self._settings = settings
        self._configs = {config.spec.id: config for config in load_model_configs(settings)}
        self._models = ModelCache(
            list(self._configs.values()), settings.device, settings.dtype, settings.model_memory_bytes
        )

    def preload(self) -> None:
        """Load what is configured to be warm; a model that fails is left to the jobs that ask for it."""
        from ripple_core.generate.warm_up import warm_up

        preloaded = []
        for model_id, config in self._configs.items():
            if config.preload:
                try:
                    model = self._models.get(model_id)
                    if config.warm_up:
                        warm_up(model)
                    preloaded.append(model_id)
                except RippleError as error:
                    logger.error("%s could not be preloaded: %s", model_id, error)
                self._connection.send(Loaded(self._models.loaded))
        if gone := [model_id for model_id in preloaded if model_id not in self._models.loaded]:
            logger.warning("what is to be preloaded does not fit together; unloaded again: %s", ", ".join(gone))

    def generate(self, task: Generate) -> None:
        """Run the videos; whatever goes wrong becomes an answer."""
        run = _Run(self._connection, task)
        with bound_contextvars(**_names(task.videos)):
            try:
                self._generate(run)
            # Border of the process: the parent gets an answer whatever happens.
            except Exception as error:  # noqa: BLE001
                _end_if_device_is_broken(error)
                for video in run.left:
                    run.end(video, _failed(error))

    def _generate(self, run: "_Run") -> None:
        model_id = run.videos[0].request.model
        is_loaded = model_id in self._models.loaded
        if not is_loaded:
            run.report_loading()
        model = self._models.get(model_id)
        if not is_loaded:
            # From when the job was sent: a child that has just been spawned first imports torch and diffusers.
            run.load_seconds = time.monotonic() - run.sent_at
            self._connection.send(Loaded(self._models.loaded))
        # Models that wait for their turn are no reason to refuse a video.
        has_others = len(self._models.loaded) > 1
        self._run(model, run, spare=OutOfMemory if has_others else None)
        if run.left:
            self._models.keep_only(model_id)
            self._connection.send(Loaded(self._models.loaded))
            run.retries = [Retry(reason="out_of_memory", remedy="unloaded_models")]
            self._run(model, run)

    def _run(self, model: "LoadedModel", run: "_Run", spare: type[RippleError] | None = None) -> None:
        """Videos that end with the error to spare are left for another try."""
        from ripple_core.generate import generate_videos

        settings = self._settings
        generate_videos(
            model,
            [run.job(video, spare) for video in run.left],
            lora_dir=settings.lora_dir,
            retry_dense=settings.retry_invalid_output,
            retry_tiling=settings.retry_out_of_memory,
        )


class _Run:
    """The videos of one Generate: what has been said of them to the parent, and by it."""

    def __init__(self, connection: Connection, task: Generate) -> None:
        self.videos = task.videos
        self.left = list(task.videos)
        self.sent_at = task.sent_at
        self.load_seconds = 0.0
        self.retries: list[Retry] = []
        self._connection = connection
        self._told_to_stop: set[str] = set()

    def report_loading(self) -> None:
        for video in self.videos:
            self._report(video, Progress(stage="load", total_steps=video.request.num_inference_steps))

    def job(self, video: Video, spare: type[RippleError] | None) -> "VideoJob":
        from ripple_core.generate import VideoJob

        def on_end(result: JobMetrics | RippleError) -> None:
            if spare is None or not isinstance(result, spare):
                self.end(video, self._answer(result))

        return VideoJob(
            video.request,
            video.folder,
            lambda progress: self._report(video, progress),
            lambda: self._should_stop(video),
            video.image,
            on_end,
            lambda step, preview: self._connection.send(Previewed(video.execution, step, preview)),
        )

    def end(self, video: Video, answer: Answer) -> None:
        if isinstance(answer, Failed):
            logger.warning("job failed: %s", answer.error.message, extra=_names((video,)))
        self.left.remove(video)
        self._connection.send(Ended(video.execution, answer))

    def _report(self, video: Video, progress: Progress) -> None:
        self._connection.send(Reported(video.execution, progress))

    def _should_stop(self, video: Video) -> bool:
        while self._connection.poll():
            message = self._connection.recv()
            if isinstance(message, Stop):
                self._told_to_stop.add(message.execution)
        return video.execution in self._told_to_stop

    def _answer(self, result: JobMetrics | RippleError) -> Answer:
        if isinstance(result, RippleError):
            return _failed(result)
        latency = result.latency_s.model_copy(update={"load": result.latency_s.load + self.load_seconds})
        changes = {"latency_s": latency, "retries": [*self.retries, *result.retries]}
        return Finished(result.model_copy(update=changes))


def _names(videos: tuple[Video, ...]) -> dict[str, str]:
    """What every line of the log has while these run; a batch has all its jobs."""
    names = {"job_id": [video.job_id for video in videos], "request_id": [video.request_id for video in videos]}
    return {name: " ".join(id_ for id_ in ids if id_) for name, ids in names.items()}


def _failed(error: Exception) -> Answer:
    if isinstance(error, GenerationCancelled):
        return Stopped()
    if isinstance(error, RippleError):
        return Failed(JobError(code=error.code, message=str(error)))
    logger.error("an error that nobody expected", exc_info=error)
    return Failed(JobError(code=GenerationFailed.code, message=in_a_line(error)))


def _end_if_device_is_broken(error: Exception) -> None:
    import torch

    if isinstance(error, torch.AcceleratorError):
        logger.critical("the device is out of order; the worker starts another process", exc_info=error)
        logging.shutdown()
        os._exit(EXIT_DEVICE_BROKEN)
