"""What a model can take and what it does by default, read from its folder's JSON files or a small catalogue.

No weights are touched: the server reads this without torch.
"""

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ripple_core.contract.errors import UnknownModel

BUILTIN_MODEL_ID = "timeripple/builtin"
BUILTIN_MODEL_FOLDER = Path(__file__).parent.parent / "tiny" / "model"
SPEC_FILE = "timeripple.json"
SUPPORTED_PIPELINES = ("WanPipeline",)


class ModelDefaults(BaseModel):
    """What a request takes when it does not say."""

    model_config = ConfigDict(frozen=True)

    width: int = 832
    height: int = 480
    num_frames: int = 81
    fps: int = 16
    num_inference_steps: int = 50
    guidance_scale: float = 5.0


class ModelSpec(BaseModel):
    """A model as clients see it, and where to load it from."""

    model_config = ConfigDict(frozen=True)

    id: str
    description: str = ""
    source: str = Field(exclude=True, description="Folder or hub name given to from_pretrained.")
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


CATALOGUE: dict[str, ModelSpec] = {
    spec.id: spec
    for spec in (
        ModelSpec(
            id="Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
            source="Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
            description="Wan 2.1 text-to-video, 1.3 billion parameters, 480p",
        ),
        ModelSpec(
            id="Wan-AI/Wan2.1-T2V-14B-Diffusers",
            source="Wan-AI/Wan2.1-T2V-14B-Diffusers",
            description="Wan 2.1 text-to-video, 14 billion parameters, 720p",
            defaults=ModelDefaults(width=1280, height=720),
        ),
        ModelSpec(
            id="Wan-AI/Wan2.2-TI2V-5B-Diffusers",
            source="Wan-AI/Wan2.2-TI2V-5B-Diffusers",
            description="Wan 2.2 text-to-video, 5 billion parameters, 704p at 24 frames per second",
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
        return ModelSpec.model_validate({"id": folder.name, "source": str(folder)} | _geometry(folder) | own)
    except (OSError, ValueError, KeyError, ValidationError) as error:
        raise UnknownModel(f"{folder} is not a complete pipeline folder: {error!r}.") from error


def _geometry(folder: Path) -> dict[str, int]:
    """Multiples that follow from the VAE's compression and the transformer's patches."""
    vae = _read_json(folder / "vae" / "config.json")
    _, patch_height, patch_width = _read_json(folder / "transformer" / "config.json")["patch_size"]
    pixels_per_token = vae.get("scale_factor_spatial", 8) * max(patch_height, patch_width)
    # WanPipeline itself refuses anything but multiples of 16.
    size_multiple = max(pixels_per_token, 16)
    return {"size_multiple": size_multiple, "frame_multiple": vae.get("scale_factor_temporal", 4)}


def _read_json(path: Path) -> dict[str, Any]:
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError(f"{path} does not hold a JSON object")
    return content
