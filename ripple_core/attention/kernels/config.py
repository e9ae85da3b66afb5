"""What a kernel is compiled with, by device, head_dim and number of tokens.

The table holds what `ripple bench tune` measured; a device that is not in it gets the default. Nothing is tuned while
a request waits.
"""

import json
import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

TABLE = Path(__file__).with_name("tuned.json")


@dataclass(frozen=True)
class KernelConfig:
    """Of the attention kernel.

    Attributes:
        query_tokens: rows that one program works on, a power of two from 16 on.
        keys_at_once: keys that it takes in one go, a power of two from 16 on.
        num_warps: of a program.
        num_stages: loads in flight.
    """

    query_tokens: int = 128
    keys_at_once: int = 64
    num_warps: int = 8
    num_stages: int = 3

    def as_list(self) -> list[int]:
        """The values in the order above."""
        return [self.query_tokens, self.keys_at_once, self.num_warps, self.num_stages]


# Where nothing was measured: what compiles without spills that matter and fits the shared memory of a program, which
# is 99 KiB on GPUs other than the large ones of these generations.
_LARGE = (9, 10)
_SMALL_CONFIG = KernelConfig(query_tokens=64, keys_at_once=32, num_warps=4)


def kernel_config(device: torch.device, head_dim: int, tokens: int) -> KernelConfig:
    """The configuration measured best at the nearest number of tokens; a default for an unknown device."""
    if device.type != "cuda":
        return KernelConfig()
    name = torch.cuda.get_device_name(device)
    known = [entry for entry in _table(TABLE) if (entry["device"], entry["head_dim"]) == (name, head_dim)]
    if not known:
        return default_config(torch.cuda.get_device_capability(device))
    nearest = min(known, key=lambda entry: abs(math.log(entry["tokens"] / tokens)))
    return KernelConfig(**nearest["config"])


def default_config(capability: tuple[int, int]) -> KernelConfig:
    """For a compute capability of which nothing was measured."""
    return KernelConfig() if capability[0] in _LARGE else _SMALL_CONFIG


@lru_cache(maxsize=1)
def _table(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text(encoding="utf-8"))
