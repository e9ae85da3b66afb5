"""Attention masks that only say how many tokens are padding."""

import torch
from torch import Tensor


def valid_key_lengths(mask: object, batch: int) -> list[int] | None:
    """How many keys each batch item has, when a mask says that and nothing else.

    Such a mask is True for the first keys of an item and False for the rest, the same for all its heads and queries.
    Queries that are padding themselves may be without any key. Waits for the device.

    Args:
        mask: a bool tensor ``[batch or 1, 1, 1 or queries, keys]``; anything else gives None.
        batch: items of the call.

    Returns:
        ``batch`` lengths, or None for any other mask.
    """
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.ndim != 4 or mask.shape[1] != 1:
        return None
    keys_BM = mask[:, 0].any(dim=1)
    lengths_B = keys_BM.sum(dim=1)
    is_prefix_B = (keys_BM[:, :-1] >= keys_BM[:, 1:]).all(dim=1)
    seen_BN = mask[:, 0].sum(dim=2)
    same_for_all_B = ((seen_BN == lengths_B[:, None]) | (seen_BN == 0)).all(dim=1)
    lengths: list[int] = torch.where(is_prefix_B & same_for_all_B, lengths_B, 0).tolist()
    if 0 in lengths:
        return None
    return lengths * batch if len(lengths) < batch else lengths
