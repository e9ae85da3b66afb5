"""What parent and child say to each other over their pipe."""

import time
from dataclasses import dataclass, field
from pathlib import Path

from ripple_core.contract.job import JobError, Progress
from ripple_core.contract.metrics import JobMetrics
from ripple_core.contract.request import ResolvedRequest


@dataclass(frozen=True)
class Generate:
    """Parent to child: generate this video's files into the folder."""

    request: ResolvedRequest
    folder: Path
    # What it begins from, for image-to-video models.
    image: Path | None = None
    # On the monotonic clock, which all processes of a machine share.
    sent_at: float = field(default_factory=time.monotonic)


@dataclass(frozen=True)
class Stop:
    """Parent to child: stop the current job after the denoising step under way."""


@dataclass(frozen=True)
class Finished:
    """Child to parent: the files are written."""

    metrics: JobMetrics


@dataclass(frozen=True)
class Failed:
    """Child to parent: the job failed; the child is ready for the next."""

    error: JobError


@dataclass(frozen=True)
class Stopped:
    """Child to parent: the job was stopped as asked."""


Answer = Progress | Finished | Failed | Stopped
EndAnswer = Finished | Failed | Stopped
