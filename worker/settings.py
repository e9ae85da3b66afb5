"""Settings of a worker process."""

from pydantic import Field

from ripple_core.contract.settings import SharedSettings


class WorkerSettings(SharedSettings):
    """Environment variables `RIPPLE_*`."""

    device: str = Field("auto", description="torch device; auto takes CUDA when there is one.")
    dtype: str = Field(
        "auto", pattern="^(auto|float32|bfloat16|float16)$", description="auto is bfloat16 on CUDA, else float32."
    )
    heartbeat_seconds: float = Field(2.0, gt=0, description="How often a worker says that it lives.")
    lost_after_seconds: int = Field(15, ge=3, description="Silence after which a worker counts as dead.")
    max_attempts: int = Field(3, ge=1, description="How often a job is started before a dying worker fails it.")
    cancel_grace_seconds: float = Field(60.0, gt=0, description="Time for a denoising step; then the child is killed.")
