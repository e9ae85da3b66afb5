"""What a finished job reports: where the time went and what the attention really saved."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class LatencySeconds(BaseModel):
    """Wall-clock seconds of each stage; total runs from acceptance to the finished MP4."""

    queue: float = Field(0.0, description="Waiting for a worker, before the start that succeeded.")
    load: float = Field(0.0, description="Loading the model; 0 when it was loaded already.")
    text_encode: float = Field(0.0, description="Reading the prompt.")
    denoise: float = Field(0.0, description="All denoising steps.")
    preview: float = Field(0.0, description="Decoding previews between denoising steps, when asked for.")
    vae_decode: float = Field(0.0, description="Latents to frames.")
    mp4_encode: float = Field(0.0, description="Frames to the file, whatever its format, and its pictures.")
    quality_check: float = Field(0.0, description="Rendering and comparing the dense twin, when asked for.")
    store: float = Field(0.0, description="The files on their way into the video store.")
    total: float = Field(0.0, description="From acceptance to the finished file.")


class AttentionCount(BaseModel):
    """FLOPs of video self-attention (QK^T and PV, a multiply-add counted as two)."""

    dense_flops: int = Field(description="What stock attention takes.")
    executed_flops: int = Field(description="What was left after reuse.")
    savings: float = Field(description="1 - executed_flops / dense_flops.")


class StepCount(AttentionCount):
    """The count of one denoising step."""

    step: int = Field(description="Counted from 0.")
    dense: bool = Field(description="True when the schedule left this step without reuse.")


class LayerCount(AttentionCount):
    """The count of one transformer layer over all steps."""

    layer: int = Field(description="Counted from 0.")


class Fallback(BaseModel):
    """Attention calls that ran dense although reuse was asked for, and why."""

    reason: str = Field(description="Stable word, such as short_sequence.")
    calls: int = Field(description="How many.")


ModeThatRan = Literal["dense", "ripple", "channel"]


class DenseHeads(BaseModel):
    """Single heads that ran dense in calls that reused otherwise, and why."""

    reason: str = Field(description="Stable word, such as little_to_save.")
    heads: int = Field(description="How many, over all calls.")


class AttentionMetrics(AttentionCount):
    """Savings counted over the whole video self-attention, dense steps and fallbacks included as zero."""

    score_savings: float = Field(description="The same for the score product QK^T alone.")
    mode: ModeThatRan = Field(description="The mode that ran.")
    aggressiveness: float = Field(description="That was asked for, 0 to 1.")
    calibrated: bool = Field(False, description="Whether the model's calibrated profile scaled the error budget.")
    backend: Literal["torch", "triton"] | None = Field(
        None, description="What computed the attention that reused; none where all of it ran dense."
    )
    dense_steps: int = Field(description="Denoising steps that the schedule left without reuse.")
    fallbacks: list[Fallback] = Field(description="Calls that ran dense although reuse was asked for.")
    dense_heads: list[DenseHeads] = Field([], description="Single heads that ran dense in calls that reused otherwise.")
    by_step: list[StepCount] = Field(description="The count of each denoising step.")
    by_layer: list[LayerCount] = Field(description="The count of each layer.")


class DeviceMetrics(BaseModel):
    """Where it ran; peak memory is the GPU allocator's, or on a CPU the process's peak resident memory meanwhile."""

    name: str = Field(description="The GPU's, or the machine's architecture.")
    dtype: str = Field(description="Of transformer and text encoder.")
    peak_memory_bytes: int = Field(description="The GPU allocator's, or the process's, while this job ran.")


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

    @property
    def in_words(self) -> str:
        """For people."""
        if self.psnr_db is None or self.worst_frame_psnr_db is None:
            return "identical"
        return f"PSNR {self.psnr_db:.1f} dB ({self.worst_frame_psnr_db:.1f} in the worst frame), SSIM {self.ssim:.3f}"


class Retry(BaseModel):
    """A second try within the same attempt, and what was changed for it."""

    reason: Literal["invalid_output", "out_of_memory"] = Field(description="Why the first try did not count.")
    remedy: Literal["dense_attention", "vae_tiling", "unloaded_models"] = Field(description="What was changed.")


class JobMetrics(BaseModel):
    """Everything measured of one job."""

    model_config = ConfigDict(frozen=True)

    latency_s: LatencySeconds = Field(description="Where the time went.")
    attention: AttentionMetrics = Field(description="What reuse saved.")
    device: DeviceMetrics = Field(description="Where it ran.")
    output: OutputMetrics = Field(description="What came out.")
    denoising_step_s: list[float] = Field(
        [], description="Time of each denoising step; a batch has them together, and none if it shrank."
    )
    dense_denoise_estimate_s: float | None = Field(
        None,
        description="What denoising would have taken without reuse: measured on the dense twin, where there is one, "
        "else the lower median of the job's own dense steps but the first, times all steps. Null where nothing says "
        "so: no other step was dense, there is a step cache, a batch shrank on the way, or the model ran for the first "
        "time after loading, when steps take longer.",
    )
    quality: QualityMetrics | None = Field(None, description="Present when `quality_check` was asked for.")
    batch_size: int = Field(1, description="Jobs that were denoised and decoded together; they share those seconds.")
    retries: list[Retry] = Field([], description="Second tries within the attempt that succeeded.")

    def _repr_html_(self) -> str:
        from ripple_core import notebook

        output, attention, latency = self.output, self.attention, self.latency_s
        rows = {
            "video": f"{output.width}x{output.height}, {output.frames} frames, {output.fps} per second, "
            f"{output.bytes:,} bytes",
            "device": f"{self.device.name}, {self.device.dtype}",
            "peak memory": notebook.gigabytes(self.device.peak_memory_bytes),
        }
        if self.quality is not None:
            rows["against the dense twin"] = self.quality.in_words
        if self.batch_size > 1:
            rows["batch"] = f"{self.batch_size} videos together"
        rows |= {f"second try, {retry.reason}": retry.remedy for retry in self.retries}
        rows |= {stage: notebook.seconds(spent) for stage, spent in latency.model_dump().items() if spent}
        return notebook.page(
            notebook.paragraph(notebook.outcome(attention.savings, latency.denoise, self.dense_denoise_estimate_s)),
            notebook.table(rows),
            notebook.attention(
                savings=attention.savings,
                score_savings=attention.score_savings,
                mode=attention.mode,
                aggressiveness=attention.aggressiveness,
                backend=attention.backend,
                dense_steps=[step.step for step in attention.by_step if step.dense],
                fallbacks={fallback.reason: fallback.calls for fallback in attention.fallbacks},
                by_step={step.step: step.savings for step in attention.by_step},
                by_layer={layer.layer: layer.savings for layer in attention.by_layer},
            ),
        )
