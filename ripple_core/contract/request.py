"""What a client may ask for, and the same with every default filled in."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

ReuseMode = Literal["auto", "ripple", "channel", "dense"]

Prompt = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2000)]
NegativePrompt = Annotated[str, StringConstraints(strip_whitespace=True, max_length=2000)]
# 2**53 - 1: the largest integer that survives JSON in every client.
Seed = Annotated[int, Field(ge=0, le=2**53 - 1)]

DEFAULT_AGGRESSIVENESS = 0.5


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


class GenerateRequest(BaseModel):
    """A text-to-video request. Whatever is left out takes the model's own default; an omitted seed is drawn."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={
            "examples": [
                {"prompt": "a red circle moving left on a dark background", "seed": 1, "reuse": {"aggressiveness": 0.5}}
            ]
        },
    )

    prompt: Prompt
    negative_prompt: NegativePrompt = ""
    model: str | None = Field(None, max_length=200, description="One of GET /models; the server's own by default.")
    width: int | None = Field(None, ge=16, le=4096, description="Pixels; multiple of the model's size_multiple.")
    height: int | None = Field(None, ge=16, le=4096, description="Pixels; multiple of the model's size_multiple.")
    num_frames: int | None = Field(None, ge=1, le=1025, description="A multiple of the model's frame_multiple, plus 1.")
    fps: int | None = Field(None, ge=1, le=120, description="Frames per second of the MP4.")
    num_inference_steps: int | None = Field(None, ge=1, le=200, description="Denoising steps.")
    guidance_scale: float | None = Field(
        None, ge=0, le=30, allow_inf_nan=False, description="Classifier-free guidance; 1 or less turns it off."
    )
    seed: Seed | None = None
    reuse: ReuseSettings = ReuseSettings()


class ResolvedRequest(BaseModel):
    """A request with every default filled in: the same resolved request gives the same video."""

    model_config = ConfigDict(frozen=True)

    prompt: str
    negative_prompt: str
    model: str
    width: int
    height: int
    num_frames: int
    fps: int
    num_inference_steps: int
    guidance_scale: float
    seed: int
    reuse: ReuseSettings
