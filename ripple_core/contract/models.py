"""What a model can take and what it does by default, read from its folder's JSON files or a small catalogue.

No weights are touched: the server reads this without torch.
"""

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ripple_core.contract.architecture import Architecture
from ripple_core.contract.errors import UnknownModel
from ripple_core.contract.request import ReuseSettings

BUILTIN_MODEL_ID = "timeripple/builtin"
BUILTIN_MODEL_FOLDER = Path(__file__).parent.parent / "tiny" / "model"
SPEC_FILE = "timeripple.json"
IMAGE_TO_VIDEO_PIPELINES = ("WanImageToVideoPipeline",)
SUPPORTED_PIPELINES = ("WanPipeline", *IMAGE_TO_VIDEO_PIPELINES)


class ModelDefaults(BaseModel):
    """What a request takes when it does not say."""

    model_config = ConfigDict(frozen=True)

    width: int = Field(832, description="Pixels.")
    height: int = Field(480, description="Pixels.")
    num_frames: int = Field(81, description="Frames of the video.")
    fps: int = Field(16, description="Frames per second.")
    num_inference_steps: int = Field(50, description="Denoising steps.")
    guidance_scale: float = Field(5.0, description="Classifier-free guidance.")
    reuse: ReuseSettings = Field(ReuseSettings(), description="How aggressively to reuse attention work.")


class ModelSpec(BaseModel):
    """A model as clients see it, and where to load it from."""

    model_config = ConfigDict(frozen=True)

    id: str = Field(description="What `model` of a request may be.")
    description: str = Field("", description="What it is, in a line.")
    example_prompts: tuple[str, ...] = Field((), description="Prompts that show what it can do.")
    source: str = Field(exclude=True, description="Folder or hub name given to from_pretrained.")
    architecture: Architecture | None = Field(None, exclude=True, description="What tells the work of a request.")
    takes_image: bool = Field(False, description="Whether a request must bring the image it begins from.")
    defaults: ModelDefaults = ModelDefaults()
    size_multiple: int = Field(16, description="Width and height are multiples of this.")
    frame_multiple: int = Field(4, description="num_frames is a multiple of this, plus 1.")
    max_size: int = Field(1280, description="Largest width or height.")
    max_frames: int = Field(161, description="Largest num_frames.")
    max_work: int | None = Field(
        None, description="Most width x height x num_frames x steps of a request; four times the defaults' by default."
    )

    def nearest_num_frames(self, num_frames: float) -> int:
        """The number of frames the model can make that is closest to this one."""
        most = (self.max_frames - 1) // self.frame_multiple
        return min(max(round((num_frames - 1) / self.frame_multiple), 0), most) * self.frame_multiple + 1

    @property
    def work_limit(self) -> int:
        """Most pixels x frames x steps of one request."""
        defaults = self.defaults
        usual = defaults.width * defaults.height * defaults.num_frames * defaults.num_inference_steps
        return self.max_work or 4 * usual


def _wan(num_layers: int, num_heads: int, ffn_dim: int, vae_spatial: int = 8) -> Architecture:
    return Architecture(
        num_layers=num_layers,
        num_heads=num_heads,
        head_dim=128,
        ffn_dim=ffn_dim,
        patch_size=(1, 2, 2),
        vae_spatial=vae_spatial,
        vae_temporal=4,
    )


_SCENES = (
    "a red fox trotting through fresh snow at dawn, low camera, shallow depth of field",
    "waves breaking on black rocks under a stormy sky, slow motion, seen from a drone",
    "a street market at night in the rain, neon signs mirrored in puddles, people with umbrellas",
)
_MOTIONS = ("the camera moves slowly forward, leaves stir in the wind", "the subject turns and looks into the camera")

CATALOGUE: dict[str, ModelSpec] = {
    spec.id: spec
    for spec in (
        ModelSpec(
            id="Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
            source="Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
            description="Wan 2.1 text-to-video, 1.3 billion parameters, 480p",
            example_prompts=_SCENES,
            architecture=_wan(num_layers=30, num_heads=12, ffn_dim=8960),
        ),
        ModelSpec(
            id="Wan-AI/Wan2.1-T2V-14B-Diffusers",
            source="Wan-AI/Wan2.1-T2V-14B-Diffusers",
            description="Wan 2.1 text-to-video, 14 billion parameters, 720p",
            example_prompts=_SCENES,
            architecture=_wan(num_layers=40, num_heads=40, ffn_dim=13824),
            defaults=ModelDefaults(width=1280, height=720),
        ),
        ModelSpec(
            id="Wan-AI/Wan2.1-I2V-14B-480P-Diffusers",
            source="Wan-AI/Wan2.1-I2V-14B-480P-Diffusers",
            description="Wan 2.1 image-to-video, 14 billion parameters, 480p",
            example_prompts=_MOTIONS,
            architecture=_wan(num_layers=40, num_heads=40, ffn_dim=13824),
            takes_image=True,
        ),
        ModelSpec(
            id="Wan-AI/Wan2.2-TI2V-5B-Diffusers",
            source="Wan-AI/Wan2.2-TI2V-5B-Diffusers",
            description="Wan 2.2 text-to-video, 5 billion parameters, 704p at 24 frames per second",
            example_prompts=_SCENES,
            architecture=_wan(num_layers=30, num_heads=24, ffn_dim=14336, vae_spatial=16),
            defaults=ModelDefaults(width=1280, height=704, num_frames=121, fps=24),
            size_multiple=32,
        ),
    )
}


def find_model(name: str) -> ModelSpec:
    """Look a model up: "builtin", a name of the catalogue, or a folder with a diffusers pipeline.

    Raises:
        UnknownModel: with what would be accepted.
    """
    if name in ("builtin", BUILTIN_MODEL_ID):
        return _read_folder(BUILTIN_MODEL_FOLDER)
    if name in CATALOGUE:
        return CATALOGUE[name]
    folder = Path(name).expanduser()
    if (folder / "model_index.json").is_file():
        return _read_folder(folder.resolve())
    raise UnknownModel(
        f"Model {name!r} is neither a folder with a model_index.json nor one of: builtin, {', '.join(CATALOGUE)}. "
        "Download other checkpoints to a folder and name that."
    )


def _read_folder(folder: Path) -> ModelSpec:
    try:
        pipeline = _read_json(folder / "model_index.json")["_class_name"]
        if pipeline not in SUPPORTED_PIPELINES:
            raise UnknownModel(f"{folder} holds a {pipeline}; supported are: {', '.join(SUPPORTED_PIPELINES)}.")
        own = _read_json(folder / SPEC_FILE) if (folder / SPEC_FILE).is_file() else {}
        read = {"id": folder.name, "source": str(folder), "takes_image": pipeline in IMAGE_TO_VIDEO_PIPELINES}
        return ModelSpec.model_validate(read | _geometry(_read_architecture(folder)) | own)
    except (OSError, ValueError, KeyError, ValidationError) as error:
        raise UnknownModel(f"{folder} is not a complete pipeline folder: {error!r}.") from error


def _read_architecture(folder: Path) -> Architecture:
    transformer = _read_json(folder / "transformer" / "config.json")
    vae = _read_json(folder / "vae" / "config.json")
    return Architecture(
        num_layers=transformer["num_layers"],
        num_heads=transformer["num_attention_heads"],
        head_dim=transformer["attention_head_dim"],
        ffn_dim=transformer["ffn_dim"],
        patch_size=transformer["patch_size"],
        vae_spatial=vae.get("scale_factor_spatial", 8),
        vae_temporal=vae.get("scale_factor_temporal", 4),
    )


def _geometry(architecture: Architecture) -> dict[str, Any]:
    """Multiples that follow from the VAE's compression and the transformer's patches."""
    _, patch_height, patch_width = architecture.patch_size
    # The pipelines themselves refuse anything but multiples of 16.
    size_multiple = max(architecture.vae_spatial * max(patch_height, patch_width), 16)
    return {
        "architecture": architecture,
        "size_multiple": size_multiple,
        "frame_multiple": architecture.vae_temporal,
    }


def _read_json(path: Path) -> dict[str, Any]:
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError(f"{path} does not hold a JSON object")
    return content
