"""What parent and child say to each other over their pipe."""

import time
from dataclasses import dataclass, field
from pathlib import Path

from ripple_core.contract.job import JobError, Progress
from ripple_core.contract.metrics import JobMetrics
from ripple_core.contract.request import ResolvedRequest


@dataclass(frozen=True)
class Video:
    """What to generate.

    Attributes:
        execution: the start of the job that it is for.
        request: all of one model.
        folder: where to write the files.
        image: what it begins from, for image-to-video models.
        job_id: for the log.
        request_id: the same.
    """

    execution: str
    request: ResolvedRequest
    folder: Path
    image: Path | None = None
    job_id: str | None = None
    request_id: str | None = None


@dataclass(frozen=True)
class Generate:
    """Parent to child: generate one video, or several that can share a run.

    Attributes:
        videos: one at least.
        sent_at: on the monotonic clock, which all processes of a machine share.
    """

    videos: tuple[Video, ...]
    sent_at: float = field(default_factory=time.monotonic)


@dataclass(frozen=True)
class Stop:
    """Parent to child: stop this execution after the denoising step under way."""

    execution: str


@dataclass(frozen=True)
class Ready:
    """Child to parent: it has started, and what was to be preloaded is loaded."""


@dataclass(frozen=True)
class Loaded:
    """Child to parent: the ids of the models in memory, the last one used at the end."""

    model_ids: tuple[str, ...]


@dataclass(frozen=True)
class Reported:
    """Child to parent: how far a video is."""

    execution: str
    progress: Progress


@dataclass(frozen=True)
class Previewed:
    """Child to parent: what a video looks like after a denoising step, as animated WebP."""

    execution: str
    step: int
    preview: bytes


@dataclass(frozen=True)
class Finished:
    """The files are written."""

    metrics: JobMetrics


@dataclass(frozen=True)
class Failed:
    """The video failed."""

    error: JobError


@dataclass(frozen=True)
class Stopped:
    """The video was stopped as asked."""


Answer = Finished | Failed | Stopped


@dataclass(frozen=True)
class Ended:
    """Child to parent: how a video ended."""

    execution: str
    answer: Answer


@dataclass(frozen=True)
class Idle:
    """Child to parent: all videos of the last Generate have ended."""


FromChild = Ready | Loaded | Reported | Previewed | Ended | Idle
