"""TimeRipple together with what diffusers offers besides: step caches, offloading, LoRA."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import FirstBlockCacheConfig

from ripple_core import TimeRippleConfig, apply_timeripple
from ripple_core.integrate.families import family_of

STEPS = 5
CONFIG = TimeRippleConfig(1.0, "channel")
# One that dispatches, with text in cross-attention; one with text and a mask; one with a kernel of its own.
SOME = ["Wan 2.1", "HunyuanVideo", "CogVideoX with RoPE"]


@pytest.mark.parametrize("name", [*SOME, "LTX-Video", "Mochi"])
def test_first_block_cache_and_reuse_are_counted_together(make_tiny: Any, name: str) -> None:
    tiny = make_tiny(name)
    counting = apply_timeripple(tiny.pipe, TimeRippleConfig(0.0))
    tiny()
    counting.remove()
    stock_flops = counting.report().total.dense_flops

    tiny.pipe.transformer.enable_cache(FirstBlockCacheConfig(threshold=1e9))
    handle = apply_timeripple(tiny.pipe, CONFIG)
    tiny()
    report = handle.report()
    assert report.fallbacks == {}
    # The first step runs every layer, each later step the first alone.
    assert report.by_layer[1].dense_flops * STEPS == report.by_layer[0].dense_flops
    assert report.total.dense_flops + report.skipped_flops == stock_flops
    by_cache_alone = report.skipped_flops / stock_flops
    assert report.savings_with_step_cache > by_cache_alone > 0
    assert report.savings_with_step_cache > report.savings > 0


def on_leaves(transformer: Any) -> None:
    transformer.enable_group_offload(torch.device("cpu"), offload_type="leaf_level")


def on_blocks(transformer: Any) -> None:
    transformer.enable_group_offload(torch.device("cpu"), offload_type="block_level", num_blocks_per_group=1)


@pytest.mark.parametrize("offload", [on_leaves, on_blocks])
@pytest.mark.parametrize("name", SOME)
@pytest.mark.parametrize("first", ["offload", "TimeRipple"])
def test_group_offload(make_tiny: Any, name: str, offload: Callable[[Any], None], first: str) -> None:
    tiny = make_tiny(name)
    handle = apply_timeripple(tiny.pipe, CONFIG)
    expected = tiny()
    if first == "offload":
        handle.remove()
        offload(tiny.pipe.transformer)
        handle = apply_timeripple(tiny.pipe, CONFIG)
    else:
        offload(tiny.pipe.transformer)
    savings = handle.report().savings
    assert torch.equal(tiny(), expected)
    # Hooks that offloading takes off would be missing in the second run.
    assert torch.equal(tiny(), expected)
    assert handle.report().fallbacks == {}
    assert savings == 0 or handle.report().savings == pytest.approx(savings)


def lora(transformer: Any) -> dict[str, torch.Tensor]:
    """Low-rank changes of the first layer's query, as in a file."""
    attention = family_of(transformer).self_attention(transformer)[0]
    name = next(name for name, module in transformer.named_modules() if module is attention)
    outputs, inputs = attention.to_q.weight.shape
    generator = torch.Generator().manual_seed(11)
    return {
        f"transformer.{name}.to_q.lora_A.weight": torch.randn(4, inputs, generator=generator),
        f"transformer.{name}.to_q.lora_B.weight": torch.randn(outputs, 4, generator=generator),
    }


@pytest.mark.parametrize("name", [*SOME, "LTX-Video", "Mochi"])
def test_lora_loaded_before_or_after(make_tiny: Any, name: str) -> None:
    pytest.importorskip("peft", reason="peft comes with the dev extra")
    before, after, plain = (make_tiny(name) for _ in range(3))
    before.pipe.load_lora_weights(lora(before.pipe.transformer))
    apply_timeripple(before.pipe, CONFIG)
    handle = apply_timeripple(after.pipe, CONFIG)
    after.pipe.load_lora_weights(lora(after.pipe.transformer))
    apply_timeripple(plain.pipe, CONFIG)
    latents = before()
    assert torch.equal(after(), latents)
    assert not torch.allclose(plain(), latents, rtol=1e-3)
    assert handle.report().fallbacks == {}
    after.pipe.unload_lora_weights()
    assert torch.equal(after(), plain())
