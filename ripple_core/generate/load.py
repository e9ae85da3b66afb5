"""Loads a pipeline: the built-in model, a folder and a hub checkpoint all go the same way."""

import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from diffusers import DiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from pydantic import ValidationError
from transformers.utils import logging as transformers_logging

from ripple_core.attention import ReuseProfile, TimeRippleConfig
from ripple_core.contract.errors import ModelLoadFailed, OutOfMemory
from ripple_core.contract.model_config import DtypeName, LoadOptions
from ripple_core.contract.models import ModelSpec
from ripple_core.contract.request import LoraSettings
from ripple_core.generate.load_options import from_pretrained_arguments, place, put_on, reason_not_to_load
from ripple_core.generate.loras import loras_on
from ripple_core.generate.no_memory import is_out_of_memory
from ripple_core.integrate import TimeRippleHandle, apply_timeripple

if TYPE_CHECKING:
    from ripple_core.generate.parallel import ParallelHandle, RankGroup

# `ripple calibrate` writes it into a pipeline's folder.
PROFILE_FILE = "reuse_profile.json"
# As Wan's authors advise.
FIXED_DTYPES = {"vae": torch.float32, "image_encoder": torch.float32}


@dataclass(frozen=True)
class LoadedModel:
    """A pipeline ready to run.

    Attributes:
        spec: what it is.
        pipe: any diffusers pipeline of a supported class.
        device: where it runs.
        dtype: of transformer and text encoder.
        profile: of its calibration, if its folder holds one.
        ranks: the processes that it shares the work with, if it runs on several devices.
    """

    spec: ModelSpec
    pipe: Any
    device: torch.device
    dtype: torch.dtype
    profile: ReuseProfile | None = None
    ranks: "RankGroup | None" = None

    @property
    def device_name(self) -> str:
        """The GPU's name, or the machine's architecture for a CPU; of how many, if not of one."""
        name = device_name(self.device)
        return f"{self.ranks.size} x {name}" if self.ranks else name

    def apply(self, config: TimeRippleConfig) -> "TimeRippleHandle | ParallelHandle":
        """TimeRipple on the pipeline, wherever it runs, for one call.

        Raises:
            GenerationFailed: when another rank does not start or fails.
        """
        return self.ranks.apply(self.pipe, config) if self.ranks else apply_timeripple(self.pipe, config)

    @contextmanager
    def with_loras(self, loras: Sequence[LoraSettings], folder: Path | None) -> Iterator[None]:
        """`loras_on` the pipeline, wherever it runs.

        Raises:
            LoraLoadFailed: when a file is missing or broken, or fits nothing.
            OutOfMemory: when they do not fit into the device's memory.
            GenerationFailed: when another rank does not start or fails.
        """
        with loras_on(self.pipe, loras, folder), self.ranks.loras_on(loras, folder) if self.ranks else nullcontext():
            yield


def device_name(device: torch.device) -> str:
    """A GPU's name, or the machine's architecture for a CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} ({platform.machine()})"


def load_model(
    spec: ModelSpec,
    device: str = "auto",
    dtype: DtypeName = "auto",
    use_profile: bool = True,
    options: LoadOptions | None = None,
) -> LoadedModel:
    """Load a pipeline and move it to a device.

    Args:
        spec: what to load.
        device: a torch device; "auto" takes CUDA when there is one.
        dtype: of transformer and text encoder where the options leave it open; "auto" is bfloat16 on CUDA and float32
            elsewhere. The VAE and the encoder of a first frame stay in float32.
        use_profile: whether to read the profile of the model's calibration, if it has one.
        options: how; by default as the stock pipeline is.

    Raises:
        ModelLoadFailed: when files are missing or broken, the profile's included, the pipeline is of an unsupported
            kind, or an option is not to be had on this device or without a package.
        OutOfMemory: when it does not fit.
    """
    options = options or LoadOptions()
    chosen_device = choose_device(device)
    chosen_dtype = choose_dtype(dtype, options, chosen_device)
    if reason := reason_not_to_load(options, chosen_device):
        raise ModelLoadFailed(f"{spec.id} could not be loaded: {reason}.")
    if chosen_device.index is not None:
        # Streams and kernels go to the current device, whatever device their tensors are on.
        torch.cuda.set_device(chosen_device)
    ranks = _start_ranks(spec, chosen_dtype, options, chosen_device)
    try:
        pipe = _load_pipe(spec, options, chosen_device, chosen_dtype)
    except (
        MemoryError,
        OSError,
        ValueError,
        RuntimeError,
        ImportError,
        LookupError,
        TypeError,
        AttributeError,
    ) as error:
        if is_out_of_memory(error):
            raise _does_not_fit(spec, chosen_device) from error
        raise ModelLoadFailed(f"{spec.id} could not be loaded from {spec.source}: {error}") from error
    profile = _load_profile(options.profile or Path(spec.source) / PROFILE_FILE, pipe) if use_profile else None
    if ranks is not None:
        ranks.attach(pipe)
    return LoadedModel(spec, pipe, chosen_device, chosen_dtype, profile, ranks)


def choose_device(name: str) -> torch.device:
    """A torch device; "auto" is CUDA when there is one."""
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)


def choose_dtype(name: DtypeName, options: LoadOptions, device: torch.device) -> torch.dtype:
    """The options', else the one named; "auto" is bfloat16 on CUDA and float32 elsewhere."""
    name = name if options.dtype == "auto" else options.dtype
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    chosen: torch.dtype = getattr(torch, name)
    return chosen


def load_transformers(spec: ModelSpec, dtype: torch.dtype, options: LoadOptions, device: str) -> Any:
    """The pipeline with its transformers alone, for a rank that does nothing but run them.

    Raises:
        Exception: of many kinds, when it cannot be loaded.
    """
    parts = [name for name, value in DiffusionPipeline.load_config(spec.source).items() if isinstance(value, list)]
    left_out = [name for name in parts if not name.startswith("transformer") and name != "scheduler"]
    return _load_pipe(spec, options, torch.device(device), dtype, **dict.fromkeys(left_out))


def _start_ranks(spec: ModelSpec, dtype: torch.dtype, options: LoadOptions, device: torch.device) -> "RankGroup | None":
    """Before this process loads, so that all load at the same time."""
    if options.context_parallel == 1:
        return None
    from ripple_core.generate.parallel import RankGroup

    of_transformers = options.model_copy(update={"vae_tiling": False, "vae_slicing": False})
    load = partial(load_transformers, spec, dtype, of_transformers)
    return RankGroup(options.context_parallel, device, load)


def _load_pipe(
    spec: ModelSpec, options: LoadOptions, device: torch.device, dtype: torch.dtype, **left_out: None
) -> Any:
    # These bars count files of a second; downloads keep theirs.
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    dtypes = {"default": dtype, **FIXED_DTYPES}
    arguments = from_pretrained_arguments(options, spec.source)
    pipe = DiffusionPipeline.from_pretrained(spec.source, dtype=dtypes, **arguments, **left_out)
    pipe.set_progress_bar_config(disable=True)
    place(pipe, options, device)
    put_on(pipe, options, dtype)
    return pipe


def _does_not_fit(spec: ModelSpec, device: torch.device) -> OutOfMemory:
    return OutOfMemory(f"{spec.id} does not fit into the memory of {device}.")


def _load_profile(path: Path, pipe: Any) -> ReuseProfile | None:
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
