"""What a pipeline is loaded with beside its files: places of its parts, fewer bits, step caches, compiled blocks."""

import json
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline, FirstBlockCacheConfig, PipelineQuantizationConfig, TaylorSeerCacheConfig
from diffusers.hooks import SeaCacheConfig

from ripple_core.contract.model_config import LoadOptions, Quantization, SeaCache, StepCacheOptions, TaylorSeerCache
from ripple_core.integrate import transformers_of

_PACKAGES = {
    "bitsandbytes_4bit": "bitsandbytes",
    "bitsandbytes_8bit": "bitsandbytes",
    "torchao": "torchao",
}


def reason_not_to_load(options: LoadOptions, device: torch.device) -> str | None:
    """What of the options this device cannot do; None when it can do all."""
    if device.type == "cuda":
        return None
    for needs_gpu, option in (
        (options.device_map is not None, f"device_map = {options.device_map!r}"),
        (options.offload == "model", "offload = 'model'"),
    ):
        if needs_gpu:
            return f"{option} needs a CUDA device, and this is {device.type}"
    return None


def from_pretrained_arguments(options: LoadOptions, source: str) -> dict[str, Any]:
    """Further arguments of `DiffusionPipeline.from_pretrained`.

    Raises:
        ImportError, ValueError, TypeError, AttributeError: when the quantisation cannot be had.
    """
    arguments: dict[str, Any] = {}
    if options.device_map is not None:
        arguments["device_map"] = options.device_map
    if options.quantization is not None:
        arguments["quantization_config"] = _quantization_config(options.quantization, source)
    return arguments


def place(pipe: Any, options: LoadOptions, device: torch.device) -> None:
    """Put the parts where they run from."""
    if options.device_map is not None:
        return
    if options.offload == "model":
        pipe.enable_model_cpu_offload(device=device)
    elif options.offload == "group":
        # Single layers: the VAE is called by its methods, where hooks on larger groups would never run.
        pipe.enable_group_offload(device, offload_type="leaf_level", use_stream=device.type == "cuda")
    else:
        pipe.to(device)


def put_on(pipe: Any, options: LoadOptions, dtype: torch.dtype) -> None:
    """Switch on what changes how the parts run."""
    if options.vae_tiling:
        pipe.vae.enable_tiling()
    if options.vae_slicing:
        pipe.vae.enable_slicing()
    for transformer in transformers_of(pipe):
        if options.step_cache is not None:
            transformer.enable_cache(_cache_config(options.step_cache, dtype))
        # After the caches: their hooks are compiled with the blocks.
        if options.compile:
            transformer.compile_repeated_blocks()


def _cache_config(options: StepCacheOptions, dtype: torch.dtype) -> Any:
    arguments = options.model_dump(exclude={"kind"})
    if isinstance(options, TaylorSeerCache):
        # Whole blocks: attention and feed-forward parts one by one would take several times the memory.
        return TaylorSeerCacheConfig(**arguments, taylor_factors_dtype=dtype, cache_identifiers=[r"blocks\.\d+"])
    if isinstance(options, SeaCache):
        return SeaCacheConfig(**arguments)
    return FirstBlockCacheConfig(**arguments)


def _quantization_config(quantization: Quantization, source: str) -> PipelineQuantizationConfig:
    """By component: diffusers and transformers have a class each, of the same name but with other arguments."""
    index = DiffusionPipeline.load_config(source) if not Path(source).is_dir() else _read_index(Path(source))
    mapping = {}
    for component in quantization.components:
        if component not in index:
            parts = ", ".join(name for name in index if not name.startswith("_"))
            raise ValueError(f"quantization: the pipeline has no component {component!r}, only {parts}")
        mapping[component] = _component_config(quantization, library=index[component][0])
    return PipelineQuantizationConfig(quant_mapping=mapping)


def _read_index(folder: Path) -> dict[str, Any]:
    index: dict[str, Any] = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    return index


def _component_config(quantization: Quantization, library: str) -> Any:
    try:
        return _make_config(quantization, library)
    except ImportError as error:
        package = _PACKAGES[quantization.backend]
        raise ImportError(f"quantization: {quantization.backend} needs the package {package} ({error})") from error


def _make_config(quantization: Quantization, library: str) -> Any:
    classes = import_module(f"{library}.quantizers.auto").AUTO_QUANTIZATION_CONFIG_MAPPING
    arguments: Mapping[str, Any] = quantization.options
    if quantization.backend == "torchao":
        arguments = _torchao_arguments(arguments)
    else:
        arguments = {f"load_in_{quantization.backend.removeprefix('bitsandbytes_')}": True, **arguments}
    return classes[quantization.backend](**arguments)


def _torchao_arguments(options: Mapping[str, Any]) -> dict[str, Any]:
    """torchao's configurations are objects; here they go by name, with their arguments beside it."""
    torchao = import_module("torchao.quantization")
    rest = {name: value for name, value in options.items() if name not in ("quant_type", "modules_to_not_convert")}
    name = options.get("quant_type", "Int8WeightOnlyConfig")
    if not (isinstance(name, str) and name.endswith("Config") and hasattr(torchao, name)):
        raise ValueError(f"quantization: torchao has no {name!r}; one is Int8WeightOnlyConfig")
    kept = {key: options[key] for key in ("modules_to_not_convert",) if key in options}
    return {"quant_type": getattr(torchao, name)(**rest), **kept}
