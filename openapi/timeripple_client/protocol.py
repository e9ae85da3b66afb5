"""What both clients say to a server and read from its answers, without any connection."""

import hashlib
import json
import mimetypes
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import httpx
from pydantic import ValidationError

from timeripple_client.models import FieldProblem, GenerateRequest, Job, Problem

FileKind = Literal["video", "thumbnail", "spritesheet"]

ENDED = ("succeeded", "failed", "cancelled")
MAX_TRIES = 6
_LONGEST_PAUSE_SECONDS = 60.0


class TimeRippleError(Exception):
    """The server refused, or a file came damaged.

    Attributes:
        status: HTTP status of the answer.
        code: stable word, such as "invalid_request" or "queue_full".
        errors: every wrong field, where fields are wrong.
    """

    def __init__(self, message: str, status: int = 0, code: str = "", errors: list[FieldProblem] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.errors = errors or []


@dataclass(frozen=True)
class Event:
    """A change of state ("state"), some progress ("progress") or a new preview ("preview")."""

    id: str
    name: str
    data: dict[str, Any]

    @property
    def ends_the_job(self) -> bool:
        """True for the last event of a job."""
        return self.name == "state" and self.data.get("status") in ENDED


def headers(api_key: str | None) -> dict[str, str]:
    """Of every request."""
    return {"Authorization": f"Bearer {api_key}"} if api_key else {}


def body_of(prompt: str | GenerateRequest, image: bytes | Path | None, fields: dict[str, Any]) -> dict[str, Any]:
    """A request's body as arguments of httpx: JSON, or a form when a file goes along."""
    if isinstance(prompt, GenerateRequest):
        asked = prompt.model_dump(mode="json", exclude_unset=True) | fields
    else:
        asked = {"prompt": prompt} | fields
    if image is None:
        return {"json": asked}
    content = image.read_bytes() if isinstance(image, Path) else image
    form = {name: value if isinstance(value, str) else json.dumps(value) for name, value in asked.items()}
    return {"data": form, "files": {"image": ("image", content)}}


def checked(response: httpx.Response) -> httpx.Response:
    """The answer, if it is a good one; its body must have been read.

    Raises:
        TimeRippleError: with what the server says is wrong.
    """
    if response.is_success:
        return response
    raise refusal(response)


def refusal(response: httpx.Response) -> TimeRippleError:
    """What the server says is wrong."""
    try:
        problem = Problem.model_validate_json(response.content)
    except ValidationError:
        text = f"The server answered {response.status_code}; is {response.url.host} a TimeRipple server?"
        return TimeRippleError(text, response.status_code)
    return TimeRippleError(problem.detail, problem.status, problem.code, problem.errors)


def pause_before_retry(failure: httpx.Response | httpx.TransportError, tries: int) -> float | None:
    """Seconds until the next try; None when another one would not help."""
    if tries >= MAX_TRIES:
        return None
    if isinstance(failure, httpx.TransportError):
        return min(0.2 * 2**tries, _LONGEST_PAUSE_SECONDS)
    if failure.status_code not in (429, 503):
        return None
    asked = failure.headers.get("retry-after", "1")
    seconds = float(asked) if asked.isdecimal() else 1.0
    # Who is told to wait for longer than this must hear so.
    return seconds if seconds <= _LONGEST_PAUSE_SECONDS else None


def job_path(job: Job | str) -> str:
    """Where a job is."""
    return f"/jobs/{job if isinstance(job, str) else job.id}"


def link_of(job: Job, kind: FileKind) -> str:
    """Path of a job's file; before the job has succeeded, of the problem that says so."""
    return getattr(job.links, kind) or f"/jobs/{job.id}/{kind}"


def resume_headers(have: int, etag: str | None) -> dict[str, str]:
    """To get the rest of a file of which the beginning is here."""
    # Of a compressed answer nobody knows where the file's own bytes go on.
    plain = {"Accept-Encoding": "identity"}
    return plain | {"Range": f"bytes={have}-", "If-Range": etag} if have and etag else plain


def target_of(job: Job, path: Path | None, response: httpx.Response) -> Path:
    """Where a file goes."""
    kind = response.headers.get("content-type", "").partition(";")[0]
    return path or Path(f"{job.id}{mimetypes.guess_extension(kind, strict=False) or ''}")


def finish_download(job: Job, kind: FileKind, partial: Path, target: Path) -> Path:
    """Give a complete file its name.

    Raises:
        TimeRippleError: when it is not the video that the server has.
    """
    if kind == "video" and job.metrics is not None:
        with partial.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != job.metrics.output.sha256:
            partial.unlink()
            raise TimeRippleError("The video came damaged; download it again.", code="damaged")
    return partial.replace(target)
