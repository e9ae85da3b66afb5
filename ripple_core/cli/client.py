"""Has a running server make a video."""

from collections.abc import Callable
from pathlib import Path

from timeripple_client import Client, Job, TimeRippleError
from timeripple_client import Progress as ClientProgress

from ripple_core.contract.errors import GenerationFailed, InvalidRequest, RippleError, Violation
from ripple_core.contract.job import Progress
from ripple_core.contract.metrics import JobMetrics
from ripple_core.contract.request import GenerateRequest


def generate_on_server(
    url: str,
    request: GenerateRequest,
    path: Path,
    on_progress: Callable[[Progress], None],
    api_key: str | None = None,
) -> JobMetrics:
    """Have a server generate one video and save it to `path`. Ctrl-C cancels the job.

    Raises:
        InvalidRequest: when the server refuses the request.
        GenerationFailed: when the job fails.
        RippleError: when the server refuses for another reason.
        httpx.TransportError: when the server cannot be reached.
    """
    try:
        with Client(url, api_key) as client:
            job = client.generate(**request.model_dump(mode="json", exclude_none=True, exclude_unset=True))
            job = _wait(client, job, on_progress)
            if job.metrics is None:
                raise GenerationFailed(job.error.message if job.error else f"The job was {job.status}.")
            client.download(job, path)
            return JobMetrics.model_validate(job.metrics.model_dump())
    except TimeRippleError as error:
        if error.errors:
            wrong = [Violation(item.field, item.message, item.allowed or "") for item in error.errors]
            raise InvalidRequest(wrong) from None
        raise RippleError(str(error)) from None


def _wait(client: Client, job: Job, on_progress: Callable[[Progress], None]) -> Job:
    def report(progress: ClientProgress) -> None:
        on_progress(Progress.model_validate(progress.model_dump()))

    try:
        return client.wait(job, on_progress=report)
    except KeyboardInterrupt:
        client.cancel(job)
        raise
