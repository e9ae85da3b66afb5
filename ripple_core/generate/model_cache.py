"""Several loaded models in one device's memory: the least recently used ones make room for others."""

import gc
import json
import logging
import math
import os
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from ripple_core.contract.errors import OutOfMemory, UnknownModel
from ripple_core.contract.model_config import DtypeName, LoadOptions, ModelConfig
from ripple_core.generate.load import FIXED_DTYPES, LoadedModel, choose_device, choose_dtype, load_model

logger = logging.getLogger(__name__)

# The rest is for what videos take beside the weights.
_SHARE_FOR_MODELS = 0.6
# A weight's; torchao's usual ones have 8 bits.
_QUANTIZED_BYTES = {"bitsandbytes_4bit": 0.5, "bitsandbytes_8bit": 1.0, "torchao": 1.0}


class ModelCache:
    """Loads models when they are asked for and keeps them.

    Args:
        configs: all that may be asked for.
        device: of all of them; "auto" takes CUDA when there is one.
        dtype: of those whose configuration leaves it open.
        memory_limit_bytes: most bytes of weights on the device; by default 60 % of its memory. A model that is larger
            all by itself is loaded nevertheless, alone.
    """

    def __init__(
        self,
        configs: Iterable[ModelConfig],
        device: str = "auto",
        dtype: DtypeName = "auto",
        memory_limit_bytes: int | None = None,
    ) -> None:
        self._configs = {config.spec.id: config for config in configs}
        self._device = choose_device(device)
        self._dtype = dtype
        self._limit = memory_limit_bytes or int(_SHARE_FOR_MODELS * device_memory_bytes(self._device))
        # The last one used at the end.
        self._models: OrderedDict[str, LoadedModel] = OrderedDict()

    @property
    def loaded(self) -> tuple[str, ...]:
        """Ids of the models in memory, the last one used at the end."""
        return tuple(self._models)

    @property
    def loaded_bytes(self) -> int:
        """What their weights take of the device's memory."""
        return sum(self._bytes_of(model_id) for model_id in self._models)

    def get(self, model_id: str) -> LoadedModel:
        """The model, loaded if it is not; others are unloaded as far as it needs their room.

        Raises:
            UnknownModel: when it is not among the configured ones.
            ModelLoadFailed: as `load_model`.
            OutOfMemory: when it does not fit even alone.
        """
        if model_id not in self._configs:
            raise UnknownModel(f"This worker has no model {model_id!r}; it has: {', '.join(self._configs)}.")
        if model_id not in self._models:
            config = self._configs[model_id]
            dtype = choose_dtype(self._dtype, config, self._device)
            self._make_room(expected_bytes(config, dtype, self._device))
            self._models[model_id] = self._load(config)
            # It may have turned out larger.
            self._make_room(0, keep=model_id)
        self._models.move_to_end(model_id)
        return self._models[model_id]

    def keep_only(self, model_id: str) -> bool:
        """Unload all others, for when a video has not enough memory; False when there were none."""
        others = [other for other in self._models if other != model_id]
        self._unload(others)
        return bool(others)

    def _load(self, config: ModelConfig) -> LoadedModel:
        try:
            return load_model(config.spec, str(self._device), self._dtype, options=config)
        except OutOfMemory:
            if not self._models:
                raise
        # Not in the handler: its error still holds what had been loaded.
        self._unload(self.loaded)
        return load_model(config.spec, str(self._device), self._dtype, options=config)

    def _make_room(self, needed_bytes: int, keep: str | None = None) -> None:
        for model_id in self.loaded:
            if self.loaded_bytes + needed_bytes <= self._limit:
                return
            if model_id != keep:
                self._unload([model_id])

    def _unload(self, model_ids: Iterable[str]) -> None:
        for model_id in model_ids:
            ranks = self._models.pop(model_id).ranks
            if ranks is not None:
                ranks.close()
            logger.info("model %s unloaded", model_id)
        # Hooks and modules refer to one another: only the collector frees them.
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _bytes_of(self, model_id: str) -> int:
        sizes = {
            name: module_bytes(part)
            for name, part in self._models[model_id].pipe.components.items()
            if isinstance(part, nn.Module)
        }
        return _on_device(sizes, self._configs[model_id], self._device)


def module_bytes(module: nn.Module) -> int:
    """Bytes of parameters and buffers, those that are shared once."""
    return sum(_tensor_bytes(tensor) for tensor in (*module.parameters(), *module.buffers()))


def _tensor_bytes(tensor: Tensor) -> int:
    # torchao's show the type that they stand for.
    if is_traceable_wrapper_subclass(tensor):
        return sum(_tensor_bytes(getattr(tensor, name)) for name in tensor.__tensor_flatten__()[0])
    return tensor.numel() * tensor.element_size()


def expected_bytes(config: ModelConfig, dtype: torch.dtype, device: torch.device) -> int:
    """What a model's weights will take of the device's memory, by its files; 0 while they are not on this machine.

    Args:
        config: of the model.
        dtype: of transformer and text encoder.
        device: where it will run.
    """
    folder = _local_folder(config.spec.source)
    if folder is None:
        return 0
    parts = [path for path in folder.iterdir() if path.is_dir()]
    sizes = {part.name: _num_weights(part) * _bytes_for_each(part.name, config, dtype) for part in parts}
    return _on_device(sizes, config, device)


def _local_folder(source: str) -> Path | None:
    if Path(source).is_dir():
        return Path(source)
    try:
        return Path(snapshot_download(source, local_files_only=True))
    except LocalEntryNotFoundError:
        return None


def _num_weights(part: Path) -> int:
    return sum(_num_weights_of_file(path) for path in part.glob("*.safetensors"))


def _num_weights_of_file(path: Path) -> int:
    """By its header alone: eight bytes of length, then JSON. Loading will tell what is wrong with a broken one."""
    try:
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        return sum(math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")
    except (OSError, ValueError, LookupError, TypeError, OverflowError, MemoryError):
        return 0


def _bytes_for_each(part: str, config: ModelConfig, dtype: torch.dtype) -> float:
    if config.quantization is not None and part in config.quantization.components:
        return _QUANTIZED_BYTES[config.quantization.backend]
    return FIXED_DTYPES.get(part, dtype).itemsize


def _on_device(sizes: Mapping[str, float], options: LoadOptions, device: torch.device) -> int:
    """What parts of these sizes take there at most: offloaded, one at a time or next to nothing."""
    if device.type == "cpu" or options.offload == "none":
        return int(sum(sizes.values()))
    return int(max(sizes.values(), default=0)) if options.offload == "model" else 0


def device_memory_bytes(device: torch.device) -> int:
    """All memory of a GPU; for CPUs what this machine, or the container, has."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with suppress(OSError, ValueError):  # the file holds "max" where there is no limit
        memory = min(memory, int(Path("/sys/fs/cgroup/memory.max").read_text("ascii")))
    return memory
