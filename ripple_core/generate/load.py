"""Loads a pipeline: the built-in model, a folder and a hub checkpoint all go the same way."""

import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import DiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from pydantic import ValidationError
from transformers.utils import logging as transformers_logging

from ripple_core.attention import ReuseProfile, TimeRippleConfig
from ripple_core.contract.errors import ModelLoadFailed, OutOfMemory
from ripple_core.contract.models import ModelSpec
from ripple_core.integrate import apply_timeripple

# `ripple calibrate` writes it into a pipeline's folder.
PROFILE_FILE = "reuse_profile.json"

DtypeName = Literal["auto", "float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class LoadedModel:
    """A pipeline ready to run.

    Attributes:
        spec: what it is.
        pipe: any diffusers pipeline of a supported class.
        device: where it runs.
        dtype: of transformer and text encoder.
        profile: of its calibration, if its folder holds one.
    """

    spec: ModelSpec
    pipe: Any
    device: torch.device
    dtype: torch.dtype
    profile: ReuseProfile | None = None

    @property
    def device_name(self) -> str:
        """The GPU's name, or the machine's architecture for a CPU."""
        return device_name(self.device)


def device_name(device: torch.device) -> str:
    """A GPU's name, or the machine's architecture for a CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} ({platform.machine()})"


def load_model(
    spec: ModelSpec, device: str = "auto", dtype: DtypeName = "auto", use_profile: bool = True
) -> LoadedModel:
    """Load a pipeline and move it to a device.

    Args:
        spec: what to load.
        device: a torch device; "auto" takes CUDA when there is one.
        dtype: of transformer and text encoder; "auto" is bfloat16 on CUDA and float32 elsewhere. The VAE and the
            encoder of a first frame stay in float32, as Wan's authors advise.
        use_profile: whether to read the profile of the model's calibration, if it has one.

    Raises:
        ModelLoadFailed: when files are missing or broken, the profile's included, or the pipeline is of an
            unsupported kind.
        OutOfMemory: when it does not fit.
    """
    chosen_device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    if dtype == "auto":
        chosen_dtype = torch.bfloat16 if chosen_device.type == "cuda" else torch.float32
    else:
        chosen_dtype = getattr(torch, dtype)
    # These bars count files of a second; downloads keep theirs.
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    try:
        dtypes = {"default": chosen_dtype, "vae": torch.float32, "image_encoder": torch.float32}
        pipe = DiffusionPipeline.from_pretrained(spec.source, dtype=dtypes).to(chosen_device)
    except torch.OutOfMemoryError as error:
        raise OutOfMemory(f"{spec.id} does not fit into the memory of {chosen_device}.") from error
    except (OSError, ValueError, RuntimeError, ImportError, KeyError) as error:
        raise ModelLoadFailed(f"{spec.id} could not be loaded from {spec.source}: {error}") from error
    pipe.set_progress_bar_config(disable=True)
    profile = _load_profile(spec, pipe) if use_profile else None
    return LoadedModel(spec, pipe, chosen_device, chosen_dtype, profile)


def _load_profile(spec: ModelSpec, pipe: Any) -> ReuseProfile | None:
    path = Path(spec.source) / PROFILE_FILE
    if not path.is_file():
        return None
    try:
        profile = ReuseProfile.model_validate_json(path.read_bytes())
        apply_timeripple(pipe, TimeRippleConfig(profile=profile)).remove()
    except ValidationError as error:
        first = error.errors()[0]
        raise _broken(path, f"{'.'.join(map(str, first['loc']))}: {first['msg']}".removeprefix(": ")) from error
    except (OSError, ValueError) as error:
        raise _broken(path, str(error)) from error
    return profile


def _broken(profile: Path, reason: str) -> ModelLoadFailed:
    return ModelLoadFailed(f"{profile} cannot be used: {reason}. Write it anew with `ripple calibrate`, or delete it.")
