"""Generated from openapi.json by `make openapi`; see there for what every field means."""

from __future__ import annotations

from pydantic import AwareDatetime, BaseModel, Field
from typing import Any, Literal


class DenseHeads(BaseModel):
    """
    Single heads that ran dense in calls that reused otherwise, and why.
    """

    heads: int = Field(..., description="How many, over all calls.")
    reason: str = Field(..., description="Stable word, such as little_to_save.")


class DeviceMetrics(BaseModel):
    """
    Where it ran; peak memory is the GPU allocator's, or on a CPU the process's peak resident memory meanwhile.
    """

    dtype: str = Field(..., description="Of transformer and text encoder.")
    name: str = Field(..., description="The GPU's, or the machine's architecture.")
    peak_memory_bytes: int = Field(..., description="The GPU allocator's, or the process's, while this job ran.")


class Estimate(BaseModel):
    """
    What a request will cost, before anything is spent.
    """

    based_on_jobs: int = Field(..., description="Number of finished jobs the seconds are taken from.")
    dense_flops: int = Field(..., description="FLOPs of the video self-attention without reuse.")
    executed_flops: int | None = Field(
        ...,
        description="FLOPs expected to be left, from the savings of like jobs; between two values of the dial that have been used, by interpolation. Null while no like job was at this value or above.",
    )
    seconds: float | None = Field(
        ...,
        description="Expected seconds on a worker that has the model loaded, from what like jobs took; null while no job of the model has finished.",
    )
    tokens: int = Field(..., description="Video tokens of each attention call: latent frames x rows x columns.")


class Fallback(BaseModel):
    """
    Attention calls that ran dense although reuse was asked for, and why.
    """

    calls: int = Field(..., description="How many.")
    reason: str = Field(..., description="Stable word, such as short_sequence.")


class FieldProblem(BaseModel):
    """
    One wrong field.
    """

    allowed: str | None = Field(None, description="What is allowed, by itself.")
    field: str = Field(..., description="Its name; dots lead into parts of fields.")
    message: str = Field(..., description="What is wrong, what is allowed.")
    nearest: list[Any] = Field([], description="The nearest values that would do.")


class JobError(BaseModel):
    """
    Why a job failed: a stable code and a message for people.
    """

    code: str = Field(..., description="Stable word for programs, such as out_of_memory.")
    message: str = Field(..., description="What happened and what to do, for people.")


class LatencySeconds(BaseModel):
    """
    Wall-clock seconds of each stage; total runs from acceptance to the finished MP4.
    """

    denoise: float = Field(0.0, description="All denoising steps.")
    load: float = Field(0.0, description="Loading the model; 0 when it was loaded already.")
    mp4_encode: float = Field(0.0, description="Frames to the file, whatever its format, and its pictures.")
    preview: float = Field(0.0, description="Decoding previews between denoising steps, when asked for.")
    quality_check: float = Field(0.0, description="Rendering and comparing the dense twin, when asked for.")
    queue: float = Field(0.0, description="Waiting for a worker, before the start that succeeded.")
    store: float = Field(0.0, description="The files on their way into the video store.")
    text_encode: float = Field(0.0, description="Reading the prompt.")
    total: float = Field(0.0, description="From acceptance to the finished file.")
    vae_decode: float = Field(0.0, description="Latents to frames.")


class LayerCount(BaseModel):
    """
    The count of one transformer layer over all steps.
    """

    dense_flops: int = Field(..., description="What stock attention takes.")
    executed_flops: int = Field(..., description="What was left after reuse.")
    layer: int = Field(..., description="Counted from 0.")
    savings: float = Field(..., description="1 - executed_flops / dense_flops.")


class Links(BaseModel):
    """
    Where to go from a job; paths on this server.
    """

    events: str = Field(..., description="Its state changes and progress as server-sent events.")
    self: str = Field(..., description="The job.")
    spritesheet: str | None = Field(..., description="Frames in a grid as JPEG, likewise.")
    thumbnail: str | None = Field(..., description="Its middle frame as WebP, likewise.")
    video: str | None = Field(..., description="The video, once the job has succeeded.")


class LoadedOn(BaseModel):
    """
    A worker that has a model in its memory.
    """

    device: str = Field(..., description="Its device as configured, such as cuda:0 or auto.")
    state: Literal["starting", "idle", "busy", "draining"] = Field(
        ..., description="What it does; a draining one takes no more jobs."
    )
    worker: str = Field(..., description="Its name.")


class LoraSettings(BaseModel):
    """
    One LoRA on the transformer for this video.
    """

    name: str = Field(..., description="One of `loras` in GET /models: a file of the server's folder, without suffix.")
    scale: float = Field(1.0, description="Strength; 0 leaves it without effect.")


class OutputMetrics(BaseModel):
    """
    The file.
    """

    bytes: int = Field(..., description="Size of the file.")
    duration_s: float = Field(..., description="Seconds.")
    fps: int = Field(..., description="Frames per second.")
    frames: int = Field(..., description="Number of frames.")
    height: int = Field(..., description="Pixels.")
    sha256: str = Field(..., description="Of the file, in hexadecimal.")
    width: int = Field(..., description="Pixels.")


class OutputSettings(BaseModel):
    """
    The file that comes out.
    """

    crf: int | None = Field(
        None, description="Constant rate factor of mp4 (default 16) and webm (default 30): lower is better and larger."
    )
    format: Literal["mp4", "webm", "gif", "zip"] = Field(
        "mp4", description="mp4 is H.264, webm is VP9, zip holds one PNG for each frame."
    )


class Problem(BaseModel):
    """
    RFC 9457 problem details; `code` is stable, the texts are not.
    """

    code: str = Field(..., description="Stable word for programs.")
    detail: str = Field(..., description="What is wrong and what to do.")
    errors: list[FieldProblem] = Field(
        [], description="Every wrong field, where fields are wrong.", validate_default=True
    )
    instance: str = Field(..., description="Path of the request.")
    status: int = Field(..., description="The HTTP status.")
    title: str = Field(..., description="The status in words.")
    type: str = Field("about:blank", description="Always about:blank: `code` says what it is.")


class Progress(BaseModel):
    """
    How far a job is.
    """

    eta_s: float | None = Field(None, description="Estimated seconds left; null while unknown.")
    fraction: float = Field(0.0, description="Share of the whole job that is done, 0 to 1.")
    stage: Literal[
        "queued", "load", "text_encode", "denoise", "vae_decode", "quality_check", "mp4_encode", "store", "done"
    ] = Field("queued", description="What is being done.")
    step: int = Field(0, description="Denoising steps finished.")
    total_steps: int = Field(0, description="Denoising steps in all; 0 before a worker has the job.")


class QualityMetrics(BaseModel):
    """
    The frames against those of the dense twin: same request and seed, attention untouched.
    """

    dense_denoise_s: float = Field(
        ..., description="Seconds of the twin's denoising, to compare with `latency_s.denoise`."
    )
    identical: bool = Field(..., description="True when no pixel differs; PSNR is null then.")
    psnr_db: float | None = Field(
        ..., description="Peak signal-to-noise ratio over all pixels of all frames, in decibels."
    )
    ssim: float = Field(..., description="Structural similarity, mean over frames; 1 is equal.")
    worst_frame_psnr_db: float | None = Field(..., description="The same of the frame that differs most.")


class QueuePlace(BaseModel):
    """
    Where a queued job stands.
    """

    position: int = Field(..., description="Number of jobs that start before it; 0 is the next.")
    wait_s: float | None = Field(
        ...,
        description="Estimated seconds until it starts, from what like jobs took; null while nothing is known of those.",
    )


class Retry(BaseModel):
    """
    A second try within the same attempt, and what was changed for it.
    """

    reason: Literal["invalid_output", "out_of_memory"] = Field(..., description="Why the first try did not count.")
    remedy: Literal["dense_attention", "vae_tiling", "unloaded_models"] = Field(..., description="What was changed.")


class ReuseSettings(BaseModel):
    """
    How aggressively to reuse attention work.
    """

    aggressiveness: float = Field(0.5, description="0 = untouched stock pipeline, 1 = most reuse.")
    mode: Literal["auto", "ripple", "channel", "dense"] = Field(
        "auto",
        description="ripple reuses in tiles and runs faster; channel is the published form, for comparison; dense never reuses; auto is ripple where it can pay, and dense on short sequences.",
    )


class StepCount(BaseModel):
    """
    The count of one denoising step.
    """

    dense: bool = Field(..., description="True when the schedule left this step without reuse.")
    dense_flops: int = Field(..., description="What stock attention takes.")
    executed_flops: int = Field(..., description="What was left after reuse.")
    savings: float = Field(..., description="1 - executed_flops / dense_flops.")
    step: int = Field(..., description="Counted from 0.")


class WebhookDelivery(BaseModel):
    """
    One attempt to tell a webhook.
    """

    at: AwareDatetime = Field(..., description="When it was made.")
    error: str | None = Field(None, description="Why it failed; null when the answer was a 2xx.")
    status_code: int | None = Field(None, description="HTTP status of the answer; null without an answer.")


class WebhookSettings(BaseModel):
    """
    Whom to tell when the job has ended.
    """

    url: str = Field(
        ..., description="Receives a signed POST (Standard Webhooks) when the job has ended; a public address, https."
    )


class AttentionMetrics(BaseModel):
    """
    Savings counted over the whole video self-attention, dense steps and fallbacks included as zero.
    """

    aggressiveness: float = Field(..., description="That was asked for, 0 to 1.")
    backend: Literal["torch", "triton"] | None = Field(
        None, description="What computed the attention that reused; none where all of it ran dense."
    )
    by_layer: list[LayerCount] = Field(..., description="The count of each layer.")
    by_step: list[StepCount] = Field(..., description="The count of each denoising step.")
    calibrated: bool = Field(False, description="Whether the model's calibrated profile scaled the error budget.")
    dense_flops: int = Field(..., description="What stock attention takes.")
    dense_heads: list[DenseHeads] = Field(
        [], description="Single heads that ran dense in calls that reused otherwise.", validate_default=True
    )
    dense_steps: int = Field(..., description="Denoising steps that the schedule left without reuse.")
    executed_flops: int = Field(..., description="What was left after reuse.")
    fallbacks: list[Fallback] = Field(..., description="Calls that ran dense although reuse was asked for.")
    mode: Literal["dense", "ripple", "channel"] = Field(..., description="The mode that ran.")
    savings: float = Field(..., description="1 - executed_flops / dense_flops.")
    score_savings: float = Field(..., description="The same for the score product QK^T alone.")


class GenerateRequest(BaseModel):
    """
    A request for a video. Whatever is left out takes the model's own default; an omitted seed is drawn.
    """

    fps: int | None = Field(None, description="Frames per second of the video.")
    guidance_scale: float | None = Field(None, description="Classifier-free guidance; 1 or less turns it off.")
    height: int | None = Field(None, description="Pixels; multiple of the model's size_multiple.")
    image: str | None = Field(
        None,
        description="First frame, for models that take one: a data URL of a PNG, JPEG or WebP (or a file in a form).",
    )
    loras: list[LoraSettings] = Field([], description="LoRAs to put on the transformer.", validate_default=True)
    model: str | None = Field(None, description="One of GET /models; the first by default.")
    n: int = Field(
        1,
        description="Number of videos: as many jobs, with seeds counting up from `seed`, listed in each one's `batch`.",
    )
    negative_prompt: str = Field("", description="What it must not show.")
    num_frames: int | None = Field(None, description="A multiple of the model's frame_multiple, plus 1.")
    num_inference_steps: int | None = Field(None, description="Denoising steps.")
    output: OutputSettings = Field(
        {"crf": None, "format": "mp4"}, description="Format of the file.", validate_default=True
    )
    preview: bool = Field(
        False,
        description="Decode small frames of the current estimate every few denoising steps, to watch at /jobs/{id}/preview; takes a little time.",
    )
    priority: Literal["high", "normal", "low"] = Field("normal", description="Jobs of a higher priority start first.")
    prompt: str = Field(..., description="What the video shows.")
    quality_check: bool = Field(
        False,
        description="Render the dense twin too, and put PSNR and SSIM against it into the metrics; takes its time.",
    )
    reuse: ReuseSettings | None = Field(
        None,
        description="How aggressively to reuse attention work. What it leaves out takes the model's default (`defaults.reuse` in GET /models), which is 0.5 and auto unless the operator chose otherwise.",
    )
    seed: int | None = Field(None, description="Same request and seed, same video. Drawn and shown if omitted.")
    webhook: WebhookSettings | None = Field(None, description="Whom to tell when the job has ended.")
    width: int | None = Field(None, description="Pixels; multiple of the model's size_multiple.")


class JobMetrics(BaseModel):
    """
    Everything measured of one job.
    """

    attention: AttentionMetrics = Field(..., description="What reuse saved.")
    batch_size: int = Field(1, description="Jobs that were denoised and decoded together; they share those seconds.")
    denoising_step_s: list[float] = Field(
        [], description="Time of each denoising step; a batch has them together, and none if it shrank."
    )
    dense_denoise_estimate_s: float | None = Field(
        None,
        description="What denoising would have taken without reuse: measured on the dense twin, where there is one, else the lower median of the job's own dense steps but the first, times all steps. Null where nothing says so: no other step was dense, there is a step cache, a batch shrank on the way, or the model ran for the first time after loading, when steps take longer.",
    )
    device: DeviceMetrics = Field(..., description="Where it ran.")
    latency_s: LatencySeconds = Field(..., description="Where the time went.")
    output: OutputMetrics = Field(..., description="What came out.")
    quality: QualityMetrics | None = Field(None, description="Present when `quality_check` was asked for.")
    retries: list[Retry] = Field(
        [], description="Second tries within the attempt that succeeded.", validate_default=True
    )


class ModelDefaults(BaseModel):
    """
    What a request takes when it does not say.
    """

    fps: int = Field(16, description="Frames per second.")
    guidance_scale: float = Field(5.0, description="Classifier-free guidance.")
    height: int = Field(480, description="Pixels.")
    num_frames: int = Field(81, description="Frames of the video.")
    num_inference_steps: int = Field(50, description="Denoising steps.")
    reuse: ReuseSettings = Field({"aggressiveness": 0.5, "mode": "auto"}, validate_default=True)
    width: int = Field(832, description="Pixels.")


class ResolvedRequest(BaseModel):
    """
    A request with every default filled in: the same resolved request gives the same video.
    """

    fps: int = Field(..., description="Frames per second of the video.")
    guidance_scale: float = Field(..., description="Classifier-free guidance; 1 or less turns it off.")
    height: int = Field(..., description="Pixels.")
    image_sha256: str | None = Field(None, description="Of the first frame as the server stored it; null without one.")
    loras: list[LoraSettings] = Field([], description="LoRAs on the transformer.", validate_default=True)
    model: str = Field(..., description="Id of the model.")
    negative_prompt: str = Field(..., description="What it must not show.")
    num_frames: int = Field(..., description="Frames of the video.")
    num_inference_steps: int = Field(..., description="Denoising steps.")
    output: OutputSettings = Field({"format": "mp4"}, description="Format of the file.", validate_default=True)
    preview: bool = Field(False, description="Whether small frames are decoded meanwhile; the video is the same.")
    prompt: str = Field(..., description="What the video shows.")
    quality_check: bool = Field(False, description="Whether the dense twin is rendered and compared too.")
    reuse: ReuseSettings
    seed: int = Field(..., description="Decides the noise.")
    width: int = Field(..., description="Pixels.")


class Webhook(BaseModel):
    """
    Whom to tell when the job has ended, and how that went.
    """

    deliveries: list[WebhookDelivery] = Field([], description="Every attempt, oldest first.", validate_default=True)
    next_attempt_at: AwareDatetime | None = Field(None, description="When the next attempt is due; null when none is.")
    state: Literal["waiting", "pending", "delivered", "failed"] = Field(
        "waiting",
        description="waiting for the job to end; pending while attempts are left; delivered; failed for good.",
    )
    url: str = Field(..., description="As given in the request.")


class EstimateAnswer(BaseModel):
    """
    What a request would cost; nothing has been queued.
    """

    estimate: Estimate | None = Field(..., description="Of each video; null for models whose shape is not known.")
    num_videos: int = Field(..., description="How many the request asks for.")
    queue_wait_s: float | None = Field(
        ..., description="Estimated seconds until a job of normal priority would start; null while unknown."
    )
    request: ResolvedRequest = Field(..., description="What would run, every default filled in.")


class Job(BaseModel):
    """
    A job as clients see it.
    """

    attempts: int = Field(
        ..., description="How often it was started; starts that a worker handed back are not counted."
    )
    batch: list[str] = Field(..., description="All jobs of the request when it asked for several videos.")
    created_at: AwareDatetime = Field(..., description="When it was accepted.")
    error: JobError | None = Field(..., description="Why it failed.")
    estimated_s: float | None = Field(
        ..., description="Seconds on a worker expected at submission; null where no like job had finished."
    )
    expires_at: AwareDatetime | None = Field(..., description="Until when the video is kept; null without a video.")
    finished_at: AwareDatetime | None = Field(..., description="When it ended.")
    id: str = Field(..., description="28 hexadecimal digits; ids sort by creation time.")
    last_failure: JobError | None = Field(
        ..., description="How the attempt before ended, when a crash cut it short; the job runs again, up to a limit."
    )
    links: Links = Field(..., description="Where to go from here.")
    metrics: JobMetrics | None = Field(..., description="Latency, savings and output, once it has succeeded.")
    priority: Literal["high", "normal", "low"] = Field(..., description="Jobs of a higher priority start first.")
    progress: Progress = Field(..., description="How far it is, and the time left.")
    queue: QueuePlace | None = Field(..., description="Where it stands while it is queued.")
    remixed_from: str | None = Field(..., description="The job whose settings were taken over.")
    request: ResolvedRequest = Field(..., description="What was asked for, every default filled in.")
    started_at: AwareDatetime | None = Field(..., description="When a worker last took it; null while none has.")
    status: Literal["queued", "running", "succeeded", "failed", "cancelled"] = Field(
        ..., description="succeeded, failed and cancelled never change again."
    )
    webhook: Webhook | None = Field(..., description="Whom it tells of its end, and how that went.")


class JobPage(BaseModel):
    """
    Jobs, newest first.
    """

    jobs: list[Job] = Field(..., description="At most `limit` of them.")
    next_cursor: str | None = Field(..., description="Give it as `cursor` to get the next page; null on the last.")


class Model(BaseModel):
    """
    A model, the reuse modes it runs with, and where it is loaded.
    """

    defaults: ModelDefaults = Field(
        {
            "fps": 16,
            "guidance_scale": 5.0,
            "height": 480,
            "num_frames": 81,
            "num_inference_steps": 50,
            "reuse": {"aggressiveness": 0.5, "mode": "auto"},
            "width": 832,
        },
        validate_default=True,
    )
    description: str = Field("", description="What it is, in a line.")
    example_prompts: list[str] = Field([], description="Prompts that show what it can do.")
    frame_multiple: int = Field(4, description="num_frames is a multiple of this, plus 1.")
    id: str = Field(..., description="What `model` of a request may be.")
    loaded_on: list[LoadedOn] = Field(
        ...,
        description="Live workers that have it in memory; jobs of a model that is nowhere wait until one has loaded it.",
    )
    loras: list[str] = Field(..., description="What `loras` may name.")
    max_frames: int = Field(161, description="Largest num_frames.")
    max_size: int = Field(1280, description="Largest width or height.")
    max_work: int | None = Field(
        None, description="Most width x height x num_frames x steps of a request; four times the defaults' by default."
    )
    modes: list[Literal["auto", "ripple", "channel", "dense"]] = Field(..., description="What `reuse.mode` may be.")
    size_multiple: int = Field(16, description="Width and height are multiples of this.")
    takes_image: bool = Field(False, description="Whether a request must bring the image it begins from.")


class ModelList(BaseModel):
    """
    The models this server generates with; the first is the default.
    """

    models: list[Model] = Field(..., description="In the operator's order.")
