"""Settings of a worker process."""

from pydantic import Field

from ripple_core.contract.model_config import DtypeName
from ripple_core.contract.settings import SharedSettings


class WorkerSettings(SharedSettings):
    """Environment variables `RIPPLE_*`."""

    device: str = Field("auto", description="torch device; auto takes CUDA when there is one.")
    dtype: DtypeName = Field("auto", description="auto is bfloat16 on CUDA, else float32.")
    model_memory_bytes: int | None = Field(
        None, ge=1, description="Most bytes of loaded models; 60 % of the device's memory by default."
    )
    warm_head_start_seconds: float = Field(
        60.0, ge=0, description="How much longer a job must have waited to go before one whose model is loaded."
    )
    heartbeat_seconds: float = Field(2.0, gt=0, description="How often a worker says that it lives.")
    lost_after_seconds: int = Field(10, ge=3, description="Silence after which a worker counts as dead.")
    max_attempts: int = Field(3, ge=1, description="How often a job is started before crashes fail it.")
    cancel_grace_seconds: float = Field(60.0, gt=0, description="Time for a denoising step; then the child is killed.")
    drain_seconds: float = Field(
        20.0, ge=0, description="On SIGTERM, time for the running job to finish if it can; else it is handed back."
    )
    load_seconds: float = Field(1800.0, gt=0, description="Time to load a model, after which it counts as hung.")
    stall_seconds: float = Field(
        600.0, gt=0, description="Time without progress (a denoising step, a stage) after which a job counts as hung."
    )
    retry_invalid_output: bool = Field(True, description="Try once more without reuse when the frames are no picture.")
    retry_out_of_memory: bool = Field(True, description="Try once more with VAE tiling when memory does not suffice.")
