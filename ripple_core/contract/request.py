"""What a client may ask for, and the same with every default filled in."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

ReuseMode = Literal["auto", "ripple", "channel", "dense"]
Priority = Literal["high", "normal", "low"]
VideoFormat = Literal["mp4", "webm", "gif", "zip"]

Prompt = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2000)]
NegativePrompt = Annotated[str, StringConstraints(strip_whitespace=True, max_length=2000)]
# 2**53 - 1: the largest integer that survives JSON in every client.
Seed = Annotated[int, Field(ge=0, le=2**53 - 1)]
# A plain name: it becomes part of a path in the folder of allowed LoRAs.
LoraName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$", max_length=100)]

DEFAULT_AGGRESSIVENESS = 0.5
MAX_VIDEOS_PER_REQUEST = 10
MAX_LORAS = 4
# Base64 of the largest accepted image, see `server.images`.
MAX_IMAGE_CHARACTERS = 14_000_000


class ReuseSettings(BaseModel):
    """How aggressively to reuse attention work."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    aggressiveness: float = Field(
        DEFAULT_AGGRESSIVENESS,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="0 = untouched stock pipeline, 1 = most reuse.",
    )
    mode: ReuseMode = Field(
        "auto",
        description="ripple reuses in tiles and runs faster; channel is the published form, for comparison; dense "
        "never reuses; auto is ripple where it can pay, and dense on short sequences.",
    )


class OutputSettings(BaseModel):
    """The file that comes out."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    format: VideoFormat = Field("mp4", description="mp4 is H.264, webm is VP9, zip holds one PNG for each frame.")
    crf: int | None = Field(
        None,
        ge=0,
        le=51,
        description="Constant rate factor of mp4 (default 16) and webm (default 30): lower is better and larger.",
    )

    @model_validator(mode="after")
    def _crf_has_a_meaning(self) -> "OutputSettings":
        if self.crf is not None and self.format in ("gif", "zip"):
            raise ValueError(f"crf applies to mp4 and webm, not to {self.format}; leave it out")
        return self


class LoraSettings(BaseModel):
    """One LoRA on the transformer for this video."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    name: LoraName = Field(description="One of `loras` in GET /models: a file of the server's folder, without suffix.")
    scale: float = Field(1.0, ge=-4, le=4, allow_inf_nan=False, description="Strength; 0 leaves it without effect.")


class WebhookSettings(BaseModel):
    """Whom to tell when the job has ended."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    url: str = Field(
        min_length=8,
        max_length=2000,
        description="Receives a signed POST (Standard Webhooks) when the job has ended; a public address, https.",
    )


class GenerateRequest(BaseModel):
    """A request for a video. Whatever is left out takes the model's own default; an omitted seed is drawn."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={
            "examples": [
                {"prompt": "a red circle moving left on a dark background", "seed": 1, "reuse": {"aggressiveness": 0.5}}
            ]
        },
    )

    prompt: Prompt = Field(description="What the video shows.")
    negative_prompt: NegativePrompt = Field("", description="What it must not show.")
    model: str | None = Field(None, max_length=200, description="One of GET /models; the first by default.")
    image: str | None = Field(
        None,
        max_length=MAX_IMAGE_CHARACTERS,
        description="First frame, for models that take one: a data URL of a PNG, JPEG or WebP (or a file in a form).",
    )
    width: int | None = Field(None, ge=16, le=4096, description="Pixels; multiple of the model's size_multiple.")
    height: int | None = Field(None, ge=16, le=4096, description="Pixels; multiple of the model's size_multiple.")
    num_frames: int | None = Field(None, ge=1, le=1025, description="A multiple of the model's frame_multiple, plus 1.")
    fps: int | None = Field(None, ge=1, le=120, description="Frames per second of the video.")
    num_inference_steps: int | None = Field(None, ge=1, le=200, description="Denoising steps.")
    guidance_scale: float | None = Field(
        None, ge=0, le=30, allow_inf_nan=False, description="Classifier-free guidance; 1 or less turns it off."
    )
    seed: Seed | None = Field(None, description="Same request and seed, same video. Drawn and shown if omitted.")
    reuse: ReuseSettings = Field(
        default_factory=ReuseSettings,
        description="How aggressively to reuse attention work. What it leaves out takes the model's default "
        "(`defaults.reuse` in GET /models), which is 0.5 and auto unless the operator chose otherwise.",
    )
    loras: list[LoraSettings] = Field([], max_length=MAX_LORAS, description="LoRAs to put on the transformer.")
    output: OutputSettings = Field(OutputSettings(), description="Format of the file.")
    quality_check: bool = Field(
        False,
        description="Render the dense twin too, and put PSNR and SSIM against it into the metrics; takes its time.",
    )
    preview: bool = Field(
        False,
        description="Decode small frames of the current estimate every few denoising steps, to watch at "
        "/jobs/{id}/preview; takes a little time.",
    )
    n: int = Field(
        1,
        ge=1,
        le=MAX_VIDEOS_PER_REQUEST,
        description="Number of videos: as many jobs, with seeds counting up from `seed`, listed in each one's `batch`.",
    )
    priority: Priority = Field("normal", description="Jobs of a higher priority start first.")
    webhook: WebhookSettings | None = Field(None, description="Whom to tell when the job has ended.")


class ResolvedRequest(BaseModel):
    """A request with every default filled in: the same resolved request gives the same video."""

    model_config = ConfigDict(frozen=True)

    prompt: str = Field(description="What the video shows.")
    negative_prompt: str = Field(description="What it must not show.")
    model: str = Field(description="Id of the model.")
    width: int = Field(description="Pixels.")
    height: int = Field(description="Pixels.")
    num_frames: int = Field(description="Frames of the video.")
    fps: int = Field(description="Frames per second of the video.")
    num_inference_steps: int = Field(description="Denoising steps.")
    guidance_scale: float = Field(description="Classifier-free guidance; 1 or less turns it off.")
    seed: int = Field(description="Decides the noise.")
    reuse: ReuseSettings = Field(description="How aggressively to reuse attention work.")
    image_sha256: str | None = Field(None, description="Of the first frame as the server stored it; null without one.")
    loras: list[LoraSettings] = Field([], description="LoRAs on the transformer.")
    output: OutputSettings = Field(OutputSettings(), description="Format of the file.")
    quality_check: bool = Field(False, description="Whether the dense twin is rendered and compared too.")
    preview: bool = Field(False, description="Whether small frames are decoded meanwhile; the video is the same.")

    @property
    def is_guided(self) -> bool:
        """Whether every denoising step runs the transformer twice; diffusers does at a scale above 1."""
        return self.guidance_scale > 1
