"""Exact attention, by the kernel that torch thinks best."""

import torch.nn.functional as F
from torch import Tensor


def dense_attention(query_BNHD: Tensor, key_BMHD: Tensor, value_BMHD: Tensor, scale: float | None = None) -> Tensor:
    """Attention of all queries to all keys ``[batch, tokens, heads, head_dim]``."""
    query_BHND, key_BHMD, value_BHMD = (x.transpose(1, 2) for x in (query_BNHD, key_BMHD, value_BMHD))
    return F.scaled_dot_product_attention(query_BHND, key_BHMD, value_BHMD, scale=scale).transpose(1, 2)
