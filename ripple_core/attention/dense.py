"""Exact attention, by the best kernel that torch has."""

from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

_HOPPER = (9, 0)
_PREFERRED = [
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]


def fastest_kernels(device: torch.device) -> AbstractContextManager[None]:
    """Within it `F.scaled_dot_product_attention` takes the fastest kernel that can do a call.

    From Hopper on that is cuDNN's, which uses the asynchronous matrix products of these GPUs; torch's own order begins
    with FlashAttention 2, which does not. Elsewhere torch's order stays.
    """
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < _HOPPER:
        return nullcontext()
    return sdpa_kernel(_PREFERRED, set_priority=True)


def dense_attention(query_BNHD: Tensor, key_BMHD: Tensor, value_BMHD: Tensor, scale: float | None = None) -> Tensor:
    """Attention of all queries to all keys ``[batch, tokens, heads, head_dim]``."""
    query_BHND, key_BHMD, value_BHMD = (x.transpose(1, 2) for x in (query_BNHD, key_BMHD, value_BMHD))
    with fastest_kernels(query_BNHD.device):
        return F.scaled_dot_product_attention(query_BHND, key_BHMD, value_BHMD, scale=scale).transpose(1, 2)
