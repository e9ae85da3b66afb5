"""Talks to a running server: submit, follow, download."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from ripple_core.contract.errors import GenerationFailed, InvalidRequest, RippleError, Violation
from ripple_core.contract.job import JobStatus, Progress
from ripple_core.contract.metrics import JobMetrics
from ripple_core.contract.request import GenerateRequest

_POLL_SECONDS = 0.2
_DOWNLOAD_SECONDS = 300.0


def generate_on_server(
    url: str, request: GenerateRequest, path: Path, on_progress: Callable[[Progress], None]
) -> JobMetrics:
    """Have a server generate one video and save it to `path`. Ctrl-C cancels the job.

    Raises:
        InvalidRequest: when the server refuses the request.
        GenerationFailed: when the job fails.
        httpx.TransportError: when the server cannot be reached.
    """
    with httpx.Client(base_url=url, timeout=30) as client:
        job = _checked(client.post("/generate", json=request.model_dump(exclude_none=True)))
        try:
            job = _wait(client, job, on_progress)
        except KeyboardInterrupt:
            client.delete(job["links"]["self"])
            raise
        if job["status"] != JobStatus.SUCCEEDED:
            error = job["error"] or {"message": f"The job was {job['status']}."}
            raise GenerationFailed(error["message"])
        _download(client, job["links"]["video"], path)
        return JobMetrics.model_validate(job["metrics"])


def _wait(client: httpx.Client, job: dict[str, Any], on_progress: Callable[[Progress], None]) -> dict[str, Any]:
    while not JobStatus(job["status"]).is_terminal:
        on_progress(Progress.model_validate(job["progress"]))
        time.sleep(_POLL_SECONDS)
        job = _checked(client.get(job["links"]["self"]))
    return job


def _download(client: httpx.Client, link: str, path: Path) -> None:
    """Stream to a temporary file beside the target, then rename."""
    temporary = path.with_name(f".{path.name}.partial")
    try:
        with client.stream("GET", link, timeout=_DOWNLOAD_SECONDS) as response, temporary.open("wb") as file:
            response.raise_for_status()
            for chunk in response.iter_bytes():
                file.write(chunk)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _checked(response: httpx.Response) -> dict[str, Any]:
    """The body, or the problem it describes as an error of ours."""
    if response.is_success:
        return dict(response.json())
    if response.headers.get("content-type", "").startswith("application/problem+json"):
        problem = response.json()
        if problem.get("errors"):
            wrong = [Violation(item["field"], item["message"], item.get("allowed") or "") for item in problem["errors"]]
            raise InvalidRequest(wrong)
        raise RippleError(problem["detail"])
    raise RippleError(f"The server answered {response.status_code}; is {response.url.host} a TimeRipple server?")
