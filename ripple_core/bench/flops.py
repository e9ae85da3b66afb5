"""FLOPs of a whole transformer forward, to compare methods that skip more than attention.

Everything but the products of self-attention is linear in the tokens, so two tiny counted forwards tell it for any
size; self-attention is counted exactly by `ripple_core.attention.savings`.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ripple_core.attention import SavingsReport


@dataclass(frozen=True)
class Linear:
    """constant + per_token * tokens."""

    constant: float
    per_token: float

    def at(self, tokens: int) -> float:
        """The value for a number of tokens."""
        return self.constant + self.per_token * tokens


@dataclass(frozen=True)
class TransformerFlops:
    """What a forward of one clip takes besides QK^T and PV of self-attention.

    Attributes:
        block: of one transformer block.
        outside: of embeddings and output projection.
    """

    block: Linear
    outside: Linear

    def of_run(self, report: SavingsReport, tokens: int, forwards: int) -> int:
        """All FLOPs of a run: executed self-attention, the rest of each block that ran, and what is outside them."""
        rest = report.calls * self.block.at(tokens) + forwards * self.outside.at(tokens)
        return report.total.executed_flops + round(rest)


def count_transformer(transformer: Any, text_tokens: int) -> TransformerFlops:
    """Count on two small grids (`WanTransformer3DModel`).

    Args:
        transformer: not in training.
        text_tokens: length of the prompt embedding.
    """
    sizes = (4, 8)
    counted = [_count(transformer, size, text_tokens) for size in sizes]
    tokens = [size * size for size in sizes]
    block, outside = (_line(tokens, [count[index] for count in counted]) for index in (0, 1))
    return TransformerFlops(block, outside)


def _line(x: list[int], y: list[float]) -> Linear:
    slope = (y[1] - y[0]) / (x[1] - x[0])
    return Linear(y[0] - slope * x[0], slope)


@torch.no_grad()
def _count(transformer: Any, size: int, text_tokens: int) -> tuple[float, float]:
    """FLOPs of one block less its self-attention products, and of everything outside the blocks."""
    config = transformer.config
    _, patch_y, patch_x = config.patch_size
    weight = next(transformer.parameters())
    latents = weight.new_zeros(1, config.in_channels, config.patch_size[0], size * patch_y, size * patch_x)
    text = weight.new_zeros(1, text_tokens, config.text_dim)
    # Counted as plain matrix products: not every fused kernel has a formula in torch's counter.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        transformer(latents, weight.new_zeros(1), text, return_dict=False)
    total = counter.get_total_flops()
    counts = {name: sum(ops.values()) for name, ops in counter.get_flop_counts().items()}
    blocks = sum(count for name, count in counts.items() if name.split(".")[-2:-1] == ["blocks"])
    products = 4 * size**4 * config.num_attention_heads * config.attention_head_dim
    return blocks / config.num_layers - products, total - blocks
