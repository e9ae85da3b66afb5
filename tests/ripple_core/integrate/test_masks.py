"""Which masks are nothing but lengths."""

import pytest
import torch

from ripple_core.integrate.masks import valid_key_lengths

LENGTHS = torch.tensor([3, 5])
KEYS = torch.arange(5)[None] < LENGTHS[:, None]  # [batch, keys]


def test_a_padding_mask_over_keys() -> None:
    assert valid_key_lengths(KEYS[:, None, None], 2) == [3, 5]


def test_a_padding_mask_over_queries_and_keys() -> None:
    assert valid_key_lengths((KEYS[:, None, None] & KEYS[:, None, :, None]), 2) == [3, 5]


def test_one_mask_for_the_whole_batch() -> None:
    assert valid_key_lengths(KEYS[:1, None, None], 2) == [3, 3]


@pytest.mark.parametrize(
    "mask",
    [
        torch.ones(5, 5).tril().bool()[None, None],
        torch.tensor([True, False, True, True, True])[None, None, None],
        torch.zeros(1, 1, 1, 5, dtype=torch.bool),
        torch.zeros(1, 1, 1, 5),
        KEYS[None, :, None],
        KEYS,
        "a block mask",
    ],
    ids=["causal", "gap", "nothing", "additive", "per head", "two dimensions", "other type"],
)
def test_any_other_mask_is_none(mask: object) -> None:
    assert valid_key_lengths(mask, 1) is None
