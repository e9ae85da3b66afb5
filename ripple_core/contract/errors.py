"""The errors a user of TimeRipple can meet. Each class has a stable code; servers map codes to HTTP statuses.

RippleError
├── InvalidRequest      one or more fields are wrong; carries every Violation
├── UnknownModel        the model is not a built-in, a catalogue name or a pipeline folder
│   └── ModelsFileInvalid   the file of models is wrong; names file, model and field
├── UnknownApiKey       there is no API key of this id
├── JobNotFound
│   └── JobExpired      the job's record was kept for its time and then deleted
├── IdempotencyConflict the Idempotency-Key was used with another body
├── Refused             not now; says when to try again
│   ├── QueueFull           as much work waits as may wait
│   └── TooManyActiveJobs   an API key has as many queued and running jobs as it may
├── NoPreview           there is nothing to watch of a job now
├── VideoNotReady       the job has not finished yet
├── NoVideo             the job ended without a video
├── NoImage             the job began from no image
├── VideoExpired        the video was kept for its time and then deleted
├── GenerationFailed    the pipeline could not produce the video
│   ├── OutOfMemory
│   ├── ModelLoadFailed
│   ├── LoraLoadFailed
│   ├── InvalidOutput   the frames are not numbers, or all black
│   ├── Stalled         a stage made no progress within its deadline
│   └── WorkerLost      the process that ran the job died
├── GenerationCancelled
├── TargetOutOfReach    a calibration found no profile that meets its target
├── StorageUnavailable  the video store cannot be reached; also an OSError
│   └── StorageFull         there is no room left in it
└── DataFolderInUse     another `ripple up` runs on the same data folder
"""

import errno
from dataclasses import dataclass
from typing import Any, ClassVar


@dataclass(frozen=True)
class Violation:
    """One wrong field: what is wrong, what is allowed, and the nearest values that would do."""

    field: str
    message: str
    allowed: str
    nearest: tuple[Any, ...] = ()


class RippleError(Exception):
    """Base of all errors; `str(error)` is a message for the user that says what to do."""

    code: ClassVar[str] = "internal_error"


class InvalidRequest(RippleError):
    """One or more fields of a request are wrong."""

    code = "invalid_request"

    def __init__(self, violations: list[Violation]) -> None:
        super().__init__("; ".join(f"{violation.field}: {violation.message}" for violation in violations))
        self.violations = violations


class UnknownModel(RippleError):
    """The model is not known here."""

    code = "unknown_model"


class ModelsFileInvalid(UnknownModel):
    """The file of models is wrong; the message names file, model and field."""

    code = "models_file_invalid"


class UnknownApiKey(RippleError):
    """There is no API key of this id."""

    code = "unknown_api_key"


class JobNotFound(RippleError):
    """There is no job with this id."""

    code = "job_not_found"

    def __init__(self, job_id: str) -> None:
        super().__init__(f"There is no job {job_id}; it was never created or has been deleted.")


class JobExpired(JobNotFound):
    """The job's record was kept for its time and then deleted."""

    code = "job_expired"

    def __init__(self, job_id: str) -> None:
        # Not JobNotFound's own message.
        RippleError.__init__(self, f"Job {job_id} was kept for its time and has been removed; send the request again.")


class IdempotencyConflict(RippleError):
    """The Idempotency-Key was used with another body."""

    code = "idempotency_conflict"


class Refused(RippleError):
    """Not now; `retry_after_seconds` says when to try again."""

    def __init__(self, message: str, retry_after_seconds: int) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class QueueFull(Refused):
    """As much work waits as may wait."""

    code = "queue_full"


class TooManyActiveJobs(Refused):
    """An API key has as many queued and running jobs as it may."""

    code = "too_many_active_jobs"


class NoPreview(RippleError):
    """There is nothing to watch of a job now."""

    code = "no_preview"


class VideoNotReady(RippleError):
    """The job has not finished yet."""

    code = "video_not_ready"


class NoVideo(RippleError):
    """The job ended without a video."""

    code = "no_video"


class NoImage(RippleError):
    """The image of a job was asked for that has none."""

    code = "no_image"


class VideoExpired(RippleError):
    """The video was kept for its time and then deleted."""

    code = "video_expired"


class GenerationFailed(RippleError):
    """The pipeline could not produce the video."""

    code = "generation_failed"


class OutOfMemory(GenerationFailed):
    """The device's memory did not suffice."""

    code = "out_of_memory"


class ModelLoadFailed(GenerationFailed):
    """The model's files could not be loaded."""

    code = "model_load_failed"


class LoraLoadFailed(GenerationFailed):
    """A LoRA's file is missing, broken, or of another model."""

    code = "lora_load_failed"


class InvalidOutput(GenerationFailed):
    """The frames are not numbers, or all black."""

    code = "invalid_output"


class Stalled(GenerationFailed):
    """A stage made no progress within its deadline."""

    code = "stalled"


class WorkerLost(GenerationFailed):
    """The process that ran the job died."""

    code = "worker_lost"


class GenerationCancelled(RippleError):
    """The user cancelled the job."""

    code = "cancelled"


class StorageUnavailable(RippleError, OSError):
    """The video store cannot be reached."""

    code = "storage_unavailable"

    def __init__(self, reason: str) -> None:
        super().__init__(f"The video store cannot be used at the moment ({reason}); try again later.")


class StorageFull(StorageUnavailable):
    """There is no room left in the video store."""

    code = "storage_full"
    # What the system calls a full disk, and a used-up quota.
    errnos: ClassVar[tuple[int, ...]] = (errno.ENOSPC, errno.EDQUOT)

    def __init__(self, reason: str = "no space left") -> None:
        # Not StorageUnavailable's own message.
        RippleError.__init__(self, f"There is no room left for the video ({reason}); delete videos or add storage.")


class DataFolderInUse(RippleError):
    """Another `ripple up` runs on the same data folder."""

    code = "data_folder_in_use"


class TargetOutOfReach(RippleError):
    """A calibration found no profile that meets its target."""

    code = "target_out_of_reach"
