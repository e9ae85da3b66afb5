"""LoRAs on a pipeline's transformers, for the time of one video."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from ripple_core.contract.errors import LoraLoadFailed, OutOfMemory
from ripple_core.contract.request import LoraSettings
from ripple_core.generate.no_memory import is_out_of_memory
from ripple_core.integrate import transformers_of

logger = logging.getLogger(__name__)


@contextmanager
def loras_on(pipe: Any, loras: Sequence[LoraSettings], folder: Path | None) -> Iterator[None]:
    """Put LoRAs on all transformers of a pipeline, and take them off again whatever happens.

    Args:
        pipe: a Wan pipeline without LoRAs.
        loras: may be none.
        folder: holds `{name}.safetensors`.

    Raises:
        LoraLoadFailed: when a file is missing or broken, or fits nothing.
        OutOfMemory: when they do not fit into the device's memory.
    """
    if not loras:
        yield
        return
    try:
        for index, lora in enumerate(loras):
            _load(pipe, lora.name, _adapter(index), folder)
        for transformer in transformers_of(pipe):
            transformer.set_adapters([_adapter(index) for index in range(len(loras))], [lora.scale for lora in loras])
        yield
    finally:
        # The stock layers come back as they were, so the next video is what it would have been without this one.
        pipe.unload_lora_weights()


def _adapter(index: int) -> str:
    # Not the LoRA's own name: that may contain dots, which names of modules may not, and may come twice.
    return f"lora_{index}"


def _load(pipe: Any, name: str, adapter: str, folder: Path | None) -> None:
    path = folder / f"{name}.safetensors" if folder else None
    if path is None or not path.is_file():
        raise LoraLoadFailed(f"LoRA {name!r} is not in the worker's folder of LoRAs (RIPPLE_LORA_DIR).")
    for number, transformer in enumerate(transformers_of(pipe)):
        try:
            pipe.load_lora_weights(
                str(path.parent),
                weight_name=path.name,
                adapter_name=adapter,
                # Pickles run code.
                use_safetensors=True,
                local_files_only=True,
                load_into_transformer_2=number == 1,
            )
        # What diffusers and peft raise for weights of another model differs with how they differ.
        except (
            MemoryError,
            OSError,
            ValueError,
            RuntimeError,
            LookupError,
            AttributeError,
            TypeError,
            SafetensorError,
        ) as error:
            if is_out_of_memory(error):
                raise OutOfMemory(
                    f"LoRA {name!r} does not fit into the device's memory; ask for fewer LoRAs."
                ) from error
            logger.warning("LoRA %s: %s", path, error)
            raise _unfit(name) from error
        # Files without a single weight for this kind of model are passed over with a warning.
        if adapter not in getattr(transformer, "peft_config", {}):
            raise _unfit(name)


def _unfit(name: str) -> LoraLoadFailed:
    return LoraLoadFailed(f"LoRA {name!r} is broken, or made for another model; leave it out.")
