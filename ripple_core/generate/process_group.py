"""What the ranks of a model are for torch.distributed, and what they ask of devices and transformer."""

import os
import sys
from threading import Lock
from typing import Any

import torch
import torch.distributed as dist

from ripple_core.contract.errors import GenerationFailed, ModelLoadFailed
from ripple_core.generate.rank_messages import Join
from ripple_core.integrate.families import family_of

_leaving = Lock()


def join_process_group(message: Join, rank: int, size: int, device: torch.device) -> None:
    """Enter the process group of a model's ranks; every rank calls it at about the same time."""
    if sys.platform == "linux":
        # All are on this host: nobody else needs to reach what they listen on.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        os.environ.setdefault("NCCL_SOCKET_IFNAME", "lo")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    # Sizes that differ between ranks are exchanged on the CPU.
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    meeting = message.rendezvous.as_uri()
    dist.init_process_group(backend, init_method=meeting, rank=rank, world_size=size, timeout=message.timeout)


def leave_process_group() -> None:
    """Leave it, whatever is under way there; does nothing outside one."""
    with _leaving:
        if dist.is_initialized():
            # Destroying it would wait for ranks that are no more.
            dist.distributed_c10d._abort_process_group()


def check_heads(transformer: Any, size: int) -> None:
    """See that every rank gets as many heads.

    Raises:
        GenerationFailed: with the numbers of ranks that would do.
    """
    heads = {attention.heads for attention in family_of(transformer).self_attention(transformer)}
    if any(number % size for number in heads):
        allowed = [number for number in range(2, max(heads) + 1) if all(heads_ % number == 0 for heads_ in heads)]
        raise GenerationFailed(
            f"its {'/'.join(map(str, sorted(heads)))} attention heads cannot be shared out evenly; "
            f"context_parallel may be one of: {', '.join(map(str, [1, *allowed]))}."
        )


def devices_from(device: torch.device, size: int) -> list[torch.device]:
    """One for each rank: with CUDA the device and those that follow it.

    Raises:
        ModelLoadFailed: when there are not as many.
    """
    if device.type != "cuda":
        return [device] * size
    first = torch.cuda.current_device() if device.index is None else device.index
    if first + size > torch.cuda.device_count():
        raise ModelLoadFailed(
            f"context_parallel = {size} from cuda:{first} on needs {first + size} CUDA devices; "
            f"there are {torch.cuda.device_count()}."
        )
    return [torch.device("cuda", first + rank) for rank in range(size)]
