"""diffusers' step caches under our counter."""

from typing import Any

import pytest
import torch

from ripple_core.bench.step_cache import StepCache, first_block_cache, taylor_seer, taylor_seer_full_steps

STEPS, LAYERS, GUIDED = 8, 2, 2


def generate(pipe: Any) -> torch.Tensor:
    frames = pipe("a red circle", height=32, width=32, num_frames=5, num_inference_steps=STEPS, guidance_scale=2.0,
                  generator=torch.Generator().manual_seed(0), output_type="pt").frames  # fmt: skip
    pipe.transformer._reset_stateful_cache()
    return frames


def calls_under(pipe: Any, cache: StepCache) -> int:
    generate(pipe)
    cache.remove()
    return cache.report().calls


@pytest.mark.parametrize(("warm_up", "interval"), [(3, 2), (4, 3), (3, 9)])
def test_taylor_seer_computes_the_steps_we_say(random_pipeline: Any, warm_up: int, interval: int) -> None:
    calls = calls_under(random_pipeline, taylor_seer(random_pipeline.transformer, warm_up, interval))
    assert calls == taylor_seer_full_steps(STEPS, warm_up, interval) * LAYERS * GUIDED < STEPS * LAYERS * GUIDED


def test_first_block_cache_skips_by_its_threshold(random_pipeline: Any) -> None:
    transformer = random_pipeline.transformer
    assert calls_under(random_pipeline, first_block_cache(transformer, 0.0)) == STEPS * LAYERS * GUIDED
    # The first step is whole; after it only the first block runs.
    assert calls_under(random_pipeline, first_block_cache(transformer, 100.0)) == (LAYERS + STEPS - 1) * GUIDED


def test_a_removed_cache_leaves_the_stock_pipeline(random_pipeline: Any) -> None:
    before = generate(random_pipeline)
    calls_under(random_pipeline, first_block_cache(random_pipeline.transformer, 100.0))
    assert torch.equal(generate(random_pipeline), before)
