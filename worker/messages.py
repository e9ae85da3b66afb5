"""What parent and child say to each other over their pipe."""

import time
from dataclasses import dataclass, field
from pathlib import Path

from ripple_core.contract.job import JobError, Progress
from ripple_core.contract.metrics import JobMetrics
from ripple_core.contract.request import ResolvedRequest


@dataclass(frozen=True)
class Generate:
    """Parent to child: generate this video into the path."""

    request: ResolvedRequest
    path: Path
    # On the monotonic clock, which all processes of a machine share.
    sent_at: float = field(default_factory=time.monotonic)


@dataclass(frozen=True)
class Stop:
    """Parent to child: stop the current job after the denoising step under way."""


@dataclass(frozen=True)
class Finished:
    """Child to parent: the MP4 is written."""

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
