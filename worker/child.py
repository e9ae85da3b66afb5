"""The spawned process that owns the device: loads the model once and keeps it between jobs."""

import logging
import signal
import time
from multiprocessing.connection import Connection

from ripple_core.contract.errors import GenerationCancelled, GenerationFailed, RippleError
from ripple_core.contract.job import JobError, Progress
from ripple_core.contract.models import find_model
from worker.messages import Answer, Failed, Finished, Generate, Stop, Stopped
from worker.settings import WorkerSettings

logger = logging.getLogger(__name__)


def run_child(connection: Connection, settings: WorkerSettings) -> None:
    """Answer Generate messages until the parent closes the pipe."""
    # Ctrl-C reaches the whole process group; it is the parent that decides when we end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.basicConfig(level=settings.log_level)
    generator = _Generator(connection, settings)
    while True:
        try:
            message = connection.recv()
        except EOFError:
            return
        # A Stop that arrives after its job has ended finds nothing to stop.
        if isinstance(message, Generate):
            connection.send(generator.answer(message))


class _Generator:
    """Holds the loaded model."""

    def __init__(self, connection: Connection, settings: WorkerSettings) -> None:
        from ripple_core.generate import LoadedModel

        self._connection = connection
        self._settings = settings
        self._model: LoadedModel | None = None

    def answer(self, message: Generate) -> Answer:
        """Run one job; whatever goes wrong becomes an answer."""
        try:
            return self._generate(message)
        except GenerationCancelled:
            return Stopped()
        except RippleError as error:
            logger.warning("job failed: %s", error)
            return Failed(JobError(code=error.code, message=str(error)))
        except Exception as error:
            logger.exception("job failed")
            message_line = (str(error).splitlines() or [""])[0]
            return Failed(JobError(code=GenerationFailed.code, message=f"{type(error).__name__}: {message_line}"[:500]))

    def _generate(self, message: Generate) -> Finished:
        from ripple_core.generate import generate_video, load_model

        load_seconds = 0.0
        if self._model is None:
            self._connection.send(Progress(stage="load", total_steps=message.request.num_inference_steps))
            settings = self._settings
            self._model = load_model(find_model(settings.model), settings.device, settings.dtype)  # type: ignore[arg-type]
            # Since the job was sent: a child that has just been spawned first imports torch and diffusers.
            load_seconds = time.monotonic() - message.sent_at
        metrics = generate_video(
            self._model,
            message.request,
            message.folder,
            self._connection.send,
            should_stop=self._stop_was_sent,
            image=message.image,
            lora_dir=self._settings.lora_dir,
        )
        latency = metrics.latency_s.model_copy(update={"load": metrics.latency_s.load + load_seconds})
        return Finished(metrics.model_copy(update={"latency_s": latency}))

    def _stop_was_sent(self) -> bool:
        return self._connection.poll() and isinstance(self._connection.recv(), Stop)
