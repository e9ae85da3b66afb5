"""The models of a deployment and how they are loaded, from one TOML file (`RIPPLE_MODELS_FILE`).

Server and workers read the same file: the server what clients see, the workers how to load it.
"""

import tomllib
from collections import Counter
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ripple_core.contract.errors import ModelsFileInvalid, UnknownModel
from ripple_core.contract.models import ModelSpec, find_model
from ripple_core.contract.request import ReuseSettings
from ripple_core.contract.settings import SharedSettings

DtypeName = Literal["auto", "float32", "bfloat16", "float16"]
Offload = Literal["none", "model", "group"]
QuantizationBackend = Literal["bitsandbytes_4bit", "bitsandbytes_8bit", "torchao"]

_TABLE = ConfigDict(extra="forbid", frozen=True)


class Quantization(BaseModel):
    """Weights of fewer bits, by one of diffusers' backends, each a package of its own."""

    model_config = _TABLE

    backend: QuantizationBackend = Field(description="Whose configuration `options` are arguments of.")
    components: tuple[str, ...] = Field(
        ("transformer",), min_length=1, description="Parts of the pipeline, such as transformer and text_encoder."
    )
    options: dict[str, Any] = Field(
        {},
        description="Arguments of the backend's configuration class; for torchao quant_type is the name of one of its "
        "configuration classes, and the others are that one's arguments.",
    )


class FirstBlockCache(BaseModel):
    """Skips all blocks but the first while the first one's output changes little from step to step."""

    model_config = _TABLE

    kind: Literal["first_block"]
    threshold: float = Field(0.05, gt=0, description="Relative change of the first block's output that counts as much.")


class TaylorSeerCache(BaseModel):
    """Computes one step in several and extrapolates the blocks' outputs in between."""

    model_config = _TABLE

    kind: Literal["taylorseer"]
    cache_interval: int = Field(5, ge=2, description="One step in so many is computed.")
    disable_cache_before_step: int = Field(3, ge=1, description="Steps at the beginning that are all computed.")
    max_order: int = Field(1, ge=0, le=4, description="Of the Taylor series.")


class SeaCache(BaseModel):
    """Skips all blocks while the latents, filtered by how clean they are, change little; text-to-video only."""

    model_config = _TABLE

    kind: Literal["sea"]
    threshold: float = Field(0.25, gt=0, description="Change, added up over skipped steps, that counts as much.")
    max_consecutive_cached: int = Field(2, ge=1, description="Most steps skipped in a row.")


# Not PyramidAttentionBroadcast and FasterCache, which in diffusers keep one state for both passes of guidance although
# Wan runs one after the other, nor MagCache, which is made for one number of steps.
StepCacheOptions = Annotated[FirstBlockCache | TaylorSeerCache | SeaCache, Field(discriminator="kind")]


class LoadOptions(BaseModel):
    """How a pipeline is loaded and run."""

    model_config = _TABLE

    dtype: DtypeName = Field("auto", description="Of transformer and text encoder; auto leaves it to RIPPLE_DTYPE.")
    device_map: Literal["balanced"] | None = Field(None, description="balanced spreads the parts over all GPUs.")
    context_parallel: int = Field(1, ge=1, description="GPUs that share every attention call (Ulysses).")
    offload: Offload = Field(
        "none",
        description="Weights wait in the machine's memory: model moves a whole part to the GPU when its turn comes, "
        "group single layers.",
    )
    vae_tiling: bool = Field(False, description="The VAE decodes in tiles: less memory, faint seams at most.")
    vae_slicing: bool = Field(False, description="The VAE decodes the videos of a batch one by one.")
    quantization: Quantization | None = Field(None, description="Weights of fewer bits.")
    step_cache: StepCacheOptions | None = Field(
        None, description="One of diffusers' caches that skip work in some denoising steps; for every request."
    )
    compile: bool = Field(False, description="torch.compile of the transformer's repeated blocks.")
    profile: Path | None = Field(
        None, description="Of `ripple calibrate`; the reuse_profile.json in the pipeline's folder by default."
    )

    @model_validator(mode="after")
    def _placed_once(self) -> "LoadOptions":
        ways = {
            "device_map": self.device_map is not None,
            "offload": self.offload != "none",
            "context_parallel": self.context_parallel > 1,
        }
        chosen = [name for name, is_chosen in ways.items() if is_chosen]
        if len(chosen) > 1:
            raise ValueError(f"{' and '.join(chosen)} exclude one another; keep one")
        if self.context_parallel > 1 and self.step_cache is not None:
            raise ValueError("context_parallel and step_cache exclude one another; keep one")
        return self


class ModelConfig(LoadOptions):
    """One model: what it is, what clients see of it, and how a worker loads and runs it."""

    source: str = Field(
        description="builtin, a name of `ripple models`, or a pipeline folder (relative to the models file's folder)."
    )
    id: str | None = Field(
        None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,199}$", description="Its name for clients instead of its own."
    )
    description: str | None = Field(None, description="What it is, in a line, instead of its own words.")
    max_work: int | None = Field(None, ge=1, description="Most width x height x num_frames x steps of a request.")
    reuse: ReuseSettings | None = Field(None, description="For requests that do not say; 0.5 and auto by default.")
    preload: bool = Field(False, description="Workers load it when they start, in the order of the file.")
    warm_up: bool = Field(
        False,
        description="With preload: a short video that nobody sees, so that kernels and compiled code are ready.",
    )
    max_batch: int = Field(1, ge=1, le=64, description="Most requests that differ only in prompt and seed, run as one.")

    @model_validator(mode="after")
    def _warmed_at_start(self) -> "ModelConfig":
        if self.warm_up and not self.preload:
            raise ValueError("warm_up needs preload = true: a job that waits for its model is the first video itself")
        return self

    @cached_property
    def spec(self) -> ModelSpec:
        """What clients see.

        Raises:
            UnknownModel: when the source is not known.
        """
        spec = find_model(self.source)
        own = {"id": self.id, "description": self.description, "max_work": self.max_work}
        changes: dict[str, Any] = {name: value for name, value in own.items() if value is not None}
        if self.reuse is not None:
            changes["defaults"] = spec.defaults.model_copy(update={"reuse": self.reuse})
        return spec.model_copy(update=changes)


def load_model_configs(settings: SharedSettings) -> list[ModelConfig]:
    """The models of this deployment, the default one first: those of the models file, else the one of RIPPLE_MODEL.

    Raises:
        UnknownModel: when RIPPLE_MODEL is not known.
        ModelsFileInvalid: when the models file is wrong; says where and how.
    """
    if settings.models_file is not None:
        return read_models_file(settings.models_file)
    config = ModelConfig(source=settings.model)
    _ = config.spec  # raises
    return [config]


def read_models_file(path: Path) -> list[ModelConfig]:
    """Read `[[models]]` tables.

    Raises:
        ModelsFileInvalid: naming file, model and field.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ModelsFileInvalid(f"{path} cannot be read: {error}") from error
    tables = content.get("models")
    if set(content) != {"models"} or not isinstance(tables, list) or not tables:
        raise ModelsFileInvalid(f"{path}: it must consist of [[models]] tables, one at least.")
    configs = [_read_table(path, index, table) for index, table in enumerate(tables)]
    twice = [model_id for model_id, count in Counter(config.spec.id for config in configs).items() if count > 1]
    if twice:
        raise ModelsFileInvalid(f"{path}: two models have the id {twice[0]!r}; give one of them another with `id`.")
    return configs


def _read_table(path: Path, index: int, table: Any) -> ModelConfig:
    known = table.get("id", table.get("source")) if isinstance(table, dict) else None
    name = f"{path}, model {index + 1}" + (f" ({known})" if known else "")
    try:
        config = _beside(path.parent, ModelConfig.model_validate(table))
        _ = config.spec  # raises
    except ValidationError as error:
        first = error.errors()[0]
        field = f", {'.'.join(map(str, first['loc']))}" if first["loc"] else ""
        raise ModelsFileInvalid(f"{name}{field}: {first['msg']}.") from error
    except UnknownModel as error:
        raise ModelsFileInvalid(f"{name}, source: {error}") from error
    if config.profile is not None and not config.profile.is_file():
        raise ModelsFileInvalid(f"{name}, profile: there is no file {config.profile}.")
    return config


def _beside(folder: Path, config: ModelConfig) -> ModelConfig:
    """The same with paths that do not depend on where the process runs."""
    source = folder / Path(config.source).expanduser()
    changes: dict[str, Any] = {}
    if (source / "model_index.json").is_file():
        changes["source"] = str(source.resolve())
    if config.profile is not None:
        changes["profile"] = (folder / config.profile.expanduser()).resolve()
    return config.model_copy(update=changes)
