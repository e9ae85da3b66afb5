"""torch.compile of the transformer's blocks with TimeRipple on it."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from ripple_core import TimeRippleConfig, apply_timeripple

CONFIG = TimeRippleConfig(1.0, "channel")


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def run(tiny: Any) -> tuple[torch.Tensor, float]:
    handle = apply_timeripple(tiny.pipe, CONFIG)
    latents = tiny()
    handle.remove()
    assert handle.report().fallbacks == {}
    return latents, handle.report().savings


def test_compiled_blocks_reuse_as_much_and_give_the_same_video(tiny: Any) -> None:
    """In one graph each where diffusers names the repeated blocks; the others break at the attention call."""
    expected, savings = run(tiny)
    for transformer in (tiny.pipe.transformer, getattr(tiny.pipe, "transformer_2", None)):
        if transformer is not None and transformer._repeated_blocks:
            transformer.compile_repeated_blocks(fullgraph=True, backend="eager")
        elif transformer is not None:
            for block in transformer.transformer_blocks:
                block.compile(backend="eager")
    latents, compiled_savings = run(tiny)
    torch.testing.assert_close(latents, expected, rtol=1e-4, atol=1e-4)
    assert compiled_savings == pytest.approx(savings, abs=1e-3)


@pytest.mark.parametrize("steps", [3, 6])
@pytest.mark.parametrize("num_layers", [2, 4])
def test_one_graph_for_all_steps_and_layers(make_tiny: Any, steps: int, num_layers: int) -> None:
    tiny = make_tiny("Wan 2.1", num_layers=num_layers)
    counter = CompileCounterWithBackend("eager")
    tiny.pipe.transformer.compile_repeated_blocks(fullgraph=True, backend=counter)
    for aggressiveness in (0.0, 0.5, 1.0):
        handle = apply_timeripple(tiny.pipe, TimeRippleConfig(aggressiveness, "channel"))
        tiny(num_inference_steps=steps)
        handle.remove()
    assert counter.frame_count == 1


def test_inductor(make_tiny: Any) -> None:
    tiny = make_tiny("Wan 2.1")
    expected, savings = run(tiny)
    tiny.pipe.transformer.compile_repeated_blocks(fullgraph=True)
    latents, compiled_savings = run(tiny)
    torch.testing.assert_close(latents, expected, rtol=1e-3, atol=1e-3)
    assert compiled_savings == pytest.approx(savings, abs=1e-3)


def test_a_transformer_compiled_as_a_whole(make_tiny: Any) -> None:
    tiny = make_tiny("Wan 2.1")
    expected, savings = run(tiny)
    tiny.pipe.transformer = torch.compile(tiny.pipe.transformer, backend="eager")
    latents, compiled_savings = run(tiny)
    torch.testing.assert_close(latents, expected, rtol=1e-4, atol=1e-4)
    assert compiled_savings == pytest.approx(savings, abs=1e-3)
