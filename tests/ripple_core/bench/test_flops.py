"""The whole transformer's FLOPs against a count by hand."""

from typing import Any

import torch

from ripple_core.bench.flops import count_transformer
from ripple_core.integrate import apply_method


def test_one_block_and_the_rest_by_hand(random_pipeline: Any) -> None:
    config = random_pipeline.transformer.config
    width, text = config.num_attention_heads * config.attention_head_dim, 512
    flops = count_transformer(random_pipeline.transformer, text)
    projections = 4 * width * width + 2 * width * width  # self-attention, and cross-attention's query and output
    feed_forward = 2 * width * config.ffn_dim
    cross_products = 2 * text * width
    assert flops.block.per_token == 2 * (projections + feed_forward + cross_products)
    assert flops.block.constant == 2 * (2 * text * width * width)  # cross-attention's keys and values
    patch = config.in_channels * 4
    assert flops.outside.per_token == 2 * (patch * width + width * patch)


def test_a_counted_forward_adds_up(random_pipeline: Any) -> None:
    transformer = random_pipeline.transformer
    handle = apply_method(transformer, None)
    with torch.no_grad():
        transformer(torch.zeros(1, 8, 3, 8, 12), torch.zeros(1), torch.zeros(1, 512, 64))
    handle.remove()
    report, tokens = handle.report(), 3 * 4 * 6
    width = transformer.config.num_attention_heads * transformer.config.attention_head_dim
    assert (report.calls, report.tokens) == (2, tokens)
    # QK^T and PV of one layer: two products of tokens x tokens x width, a multiply-add counted as two.
    assert report.by_layer[0].executed_flops == 2 * 2 * tokens * tokens * width
    flops = count_transformer(transformer, 512)
    by_hand = report.total.executed_flops + 2 * flops.block.at(tokens) + flops.outside.at(tokens)
    assert flops.of_run(report, tokens, forwards=1) == by_hand
