"""What a finished job reports: where the time went and what the attention really saved."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class LatencySeconds(BaseModel):
    """Wall-clock seconds of each stage; total runs from acceptance to the finished MP4."""

    queue: float = 0.0
    load: float = 0.0
    text_encode: float = 0.0
    denoise: float = 0.0
    vae_decode: float = 0.0
    mp4_encode: float = 0.0
    quality_check: float = Field(0.0, description="Rendering and comparing the dense twin, when asked for.")
    total: float = 0.0


class AttentionCount(BaseModel):
    """FLOPs of video self-attention (QK^T and PV, a multiply-add counted as two)."""

    dense_flops: int = Field(description="What stock attention takes.")
    executed_flops: int = Field(description="What was left after reuse.")
    savings: float = Field(description="1 - executed_flops / dense_flops.")


class StepCount(AttentionCount):
    """The count of one denoising step."""

    step: int
    dense: bool = Field(description="True when the schedule left this step without reuse.")


class LayerCount(AttentionCount):
    """The count of one transformer layer over all steps."""

    layer: int


class Fallback(BaseModel):
    """Attention calls that ran dense although reuse was asked for, and why."""

    reason: str
    calls: int


ModeThatRan = Literal["dense", "ripple", "channel"]


class DenseHeads(BaseModel):
    """Single heads that ran dense in calls that reused otherwise, and why."""

    reason: str
    heads: int


class AttentionMetrics(AttentionCount):
    """Savings counted over the whole video self-attention, dense steps and fallbacks included as zero."""

    score_savings: float = Field(description="The same for the score product QK^T alone.")
    mode: ModeThatRan = Field(description="The mode that ran.")
    aggressiveness: float
    calibrated: bool = Field(False, description="Whether the model's calibrated profile scaled the error budget.")
    backend: Literal["torch", "triton"] | None = Field(
        None, description="What computed the attention that reused; none where all of it ran dense."
    )
    dense_steps: int
    fallbacks: list[Fallback]
    dense_heads: list[DenseHeads] = []
    by_step: list[StepCount]
    by_layer: list[LayerCount]


class DeviceMetrics(BaseModel):
    """Where it ran; peak memory is the GPU allocator's, or on a CPU the process's peak resident memory."""

    name: str
    dtype: str
    peak_memory_bytes: int


class OutputMetrics(BaseModel):
    """The file."""

    frames: int = Field(description="Number of frames.")
    fps: int = Field(description="Frames per second.")
    width: int = Field(description="Pixels.")
    height: int = Field(description="Pixels.")
    duration_s: float = Field(description="Seconds.")
    bytes: int = Field(description="Size of the file.")
    sha256: str = Field(description="Of the file, in hexadecimal.")


class QualityMetrics(BaseModel):
    """The frames against those of the dense twin: same request and seed, attention untouched."""

    identical: bool = Field(description="True when no pixel differs; PSNR is null then.")
    psnr_db: float | None = Field(description="Peak signal-to-noise ratio over all pixels of all frames, in decibels.")
    worst_frame_psnr_db: float | None = Field(description="The same of the frame that differs most.")
    ssim: float = Field(description="Structural similarity, mean over frames; 1 is equal.")
    dense_denoise_s: float = Field(description="Seconds of the twin's denoising, to compare with `latency_s.denoise`.")


class JobMetrics(BaseModel):
    """Everything measured of one job."""

    model_config = ConfigDict(frozen=True)

    latency_s: LatencySeconds
    attention: AttentionMetrics
    device: DeviceMetrics
    output: OutputMetrics
    quality: QualityMetrics | None = Field(None, description="Present when `quality_check` was asked for.")
