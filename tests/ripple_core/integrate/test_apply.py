"""TimeRipple on a real WanPipeline, and on its transformer alone."""

import copy
import logging
from types import SimpleNamespace
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import FirstBlockCacheConfig
from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry
from diffusers.models.transformers.transformer_wan import WanAttnProcessor

from ripple_core import TimeRippleConfig, apply_timeripple
from ripple_core.attention import StepSchedule

STEPS = 5
# 9 frames of 32x48 pixels: 5 latent frames of 8x12, in patches of 2x2.
TOKENS = 5 * 4 * 6
HEADS, HEAD_DIM, LAYERS = 2, 12, 2
CALL_FLOPS = 4 * HEADS * TOKENS * TOKENS * HEAD_DIM


def run(pipe: Any, seed: int = 0, guidance_scale: float = 3.0) -> np.ndarray:
    return pipe(
        "a red circle moving left",
        height=32,
        width=48,
        num_frames=9,
        num_inference_steps=STEPS,
        guidance_scale=guidance_scale,
        generator=torch.Generator().manual_seed(seed),
    ).frames


@pytest.mark.parametrize(
    "config", [TimeRippleConfig(0.0), TimeRippleConfig(0.9, mode="dense")], ids=["aggressiveness 0", "mode dense"]
)
def test_nothing_reused_is_the_stock_pipeline_bit_for_bit(random_pipeline: Any, config: TimeRippleConfig) -> None:
    stock = run(random_pipeline)
    handle = apply_timeripple(random_pipeline.transformer, config)
    assert np.array_equal(run(random_pipeline), stock)
    report = handle.report()
    assert (report.savings, report.score_savings, report.mode) == (0.0, 0.0, "dense")
    assert report.total.dense_flops == report.total.executed_flops == 2 * STEPS * LAYERS * CALL_FLOPS
    assert report.dense_steps == tuple(range(STEPS))


def test_dense_steps_call_the_stock_kernel(random_pipeline: Any) -> None:
    """With every step dense by schedule, our backend is in place and the frames are still the stock ones."""
    stock = run(random_pipeline)
    handle = apply_timeripple(
        random_pipeline.transformer, TimeRippleConfig(1.0, "channel", StepSchedule(dense_share=1.0))
    )
    assert np.array_equal(run(random_pipeline), stock)
    assert handle.report().savings == 0.0


def test_counts_agree_with_a_count_by_hand(random_pipeline: Any) -> None:
    """5 steps: 1 dense at the start, 1 at the end; guidance makes two forward calls of each."""
    handle = apply_timeripple(random_pipeline.transformer, TimeRippleConfig(1.0, "channel"))
    run(random_pipeline)
    report = handle.report()
    assert report.dense_steps == (0, 4)
    assert report.fallbacks == {}
    assert {step: count.dense_flops for step, count in report.by_step.items()} == dict.fromkeys(
        range(STEPS), 2 * LAYERS * CALL_FLOPS
    )
    assert {layer: count.dense_flops for layer, count in report.by_layer.items()} == dict.fromkeys(
        range(LAYERS), 2 * STEPS * CALL_FLOPS
    )
    assert all(report.by_step[step].savings == 0 for step in report.dense_steps)
    assert all(0 < report.by_step[step].savings < 0.5 for step in (1, 2, 3))
    assert report.total.executed_flops == sum(count.executed_flops for count in report.by_step.values())
    assert report.score_savings == pytest.approx(2 * report.savings)


def test_no_guidance_halves_the_calls(random_pipeline: Any) -> None:
    handle = apply_timeripple(random_pipeline.transformer, TimeRippleConfig(1.0, "channel"))
    run(random_pipeline, guidance_scale=1.0)
    assert handle.report().total.dense_flops == STEPS * LAYERS * CALL_FLOPS


def test_savings_grow_with_aggressiveness_and_frames_change(random_pipeline: Any) -> None:
    stock = run(random_pipeline)
    savings = []
    for aggressiveness in (0.1, 0.4, 0.7, 1.0):
        handle = apply_timeripple(random_pipeline.transformer, TimeRippleConfig(aggressiveness, "channel"))
        frames = run(random_pipeline)
        handle.remove()
        savings.append(handle.report().savings)
    assert savings == sorted(savings)
    assert savings[0] < savings[-1]
    assert not np.array_equal(frames, stock)


def test_remove_leaves_no_trace(random_pipeline: Any) -> None:
    """But for one name in diffusers' table of backends, to which nothing refers."""
    transformer = random_pipeline.transformer
    stock = run(random_pipeline)
    backends = set(_AttentionBackendRegistry._backends) | {"timeripple"}
    handle = apply_timeripple(random_pipeline, TimeRippleConfig(1.0, "channel"))
    run(random_pipeline)
    handle.remove()
    handle.remove()
    assert np.array_equal(run(random_pipeline), stock)
    assert set(_AttentionBackendRegistry._backends) == backends
    for block in transformer.blocks:
        assert type(block.attn1.processor) is WanAttnProcessor
        assert vars(block.attn1.processor) == {}
    assert not transformer._forward_hooks
    assert not transformer._forward_pre_hooks
    assert handle.report().savings > 0


def test_a_backend_chosen_by_the_user_stays_for_dense_steps_and_afterwards(random_pipeline: Any) -> None:
    random_pipeline.transformer.blocks[0].attn1.processor._attention_backend = AttentionBackendName._NATIVE_MATH
    handle = apply_timeripple(random_pipeline.transformer, TimeRippleConfig(1.0, "channel"))
    run(random_pipeline)
    handle.remove()
    assert random_pipeline.transformer.blocks[0].attn1.processor._attention_backend == AttentionBackendName._NATIVE_MATH


def test_only_this_transformer_changes(random_pipeline: Any) -> None:
    other = copy.deepcopy(random_pipeline.transformer)
    apply_timeripple(random_pipeline.transformer, TimeRippleConfig(1.0, "channel"))
    assert all(block.attn1.processor._attention_backend is None for block in other.blocks)
    assert all(block.attn2.processor._attention_backend is None for block in random_pipeline.transformer.blocks)


def test_applying_twice_is_refused(random_pipeline: Any) -> None:
    apply_timeripple(random_pipeline.transformer)
    with pytest.raises(ValueError, match="remove"):
        apply_timeripple(random_pipeline.transformer)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("SanaVideoTransformer3DModel", "linear"),
        ("LatteTransformer3DModel", "one frame and one pixel"),
        ("HeliosTransformer3DModel", "several resolutions"),
    ],
)
def test_a_class_that_cannot_work_says_why_and_what_does(name: str, reason: str) -> None:
    model = getattr(diffusers, name)
    with pytest.raises(ValueError, match=f"{name} is not supported.*{reason}.*Supported are: Wan.*CogVideoX"):
        apply_timeripple(model.__new__(model))


def test_settings_that_cannot_work_say_why() -> None:
    causal = diffusers.SkyReelsV2Transformer3DModel(
        num_attention_heads=1, attention_head_dim=12, num_layers=1, ffn_dim=8, freq_dim=8, text_dim=8,
        num_frame_per_block=2,
    )  # fmt: skip
    with pytest.raises(ValueError, match="causal from block to block"):
        apply_timeripple(causal)
    nabla = diffusers.Kandinsky5Transformer3DModel(
        model_dim=64, ff_dim=8, time_dim=8, num_text_blocks=1, num_visual_blocks=1, attention_type="nabla"
    )
    with pytest.raises(ValueError, match="'nabla' reorders the video's tokens; 'regular' works"):
        apply_timeripple(nabla)


def test_a_pipeline_whose_frames_stand_at_different_steps_is_refused(random_pipeline: Any) -> None:
    pipe = diffusers.SkyReelsV2DiffusionForcingPipeline(
        tokenizer=None,
        text_encoder=None,
        transformer=random_pipeline.transformer,
        vae=random_pipeline.vae,
        scheduler=random_pipeline.scheduler,
    )
    with pytest.raises(ValueError, match="different denoising steps"):
        apply_timeripple(pipe)


def test_a_pipeline_without_a_transformer_is_refused() -> None:
    with pytest.raises(ValueError, match="it has no transformer"):
        apply_timeripple(SimpleNamespace())


def test_a_processor_shared_between_modules_is_refused(random_pipeline: Any) -> None:
    """The call's layer, and whether it is self-attention, could not be told."""
    random_pipeline.transformer.set_attn_processor(WanAttnProcessor())
    with pytest.raises(ValueError, match=r"share a processor.*set_processor"):
        apply_timeripple(random_pipeline)


def test_a_mask_that_is_not_padding_runs_dense_and_is_reported(random_pipeline: Any) -> None:
    transformer = random_pipeline.transformer
    handle = apply_timeripple(transformer, TimeRippleConfig(1.0, "channel"))
    attention = transformer.blocks[0].attn1
    tokens = torch.randn(1, 6, 24)
    causal = torch.ones(6, 6).tril().bool()[None, None]
    handle.set_step(2, STEPS)
    TestBareTransformer.forward(transformer)
    before = handle.report().fallbacks
    with torch.no_grad():
        masked = attention(tokens, None, causal)
        handle.remove()
        assert torch.equal(attention(tokens, None, causal), masked)
    assert (before, handle.report().fallbacks) == ({}, {"attention_mask": 1})


def test_settings_made_while_applied_reach_the_stock_kernel_and_stay(random_pipeline: Any) -> None:
    """set_attention_backend neither switches reuse off nor is lost."""
    pipe = random_pipeline
    handle = apply_timeripple(pipe, TimeRippleConfig(1.0, "channel"))
    processor = pipe.transformer.blocks[0].attn1.processor
    pipe.transformer.set_attention_backend("_native_math")
    run(pipe)
    handle.remove()
    _AttentionBackendRegistry.set_active_backend(AttentionBackendName.NATIVE)
    assert handle.report().savings > 0
    assert processor._attention_backend == AttentionBackendName._NATIVE_MATH
    assert type(processor) is WanAttnProcessor


def test_an_unsupported_class_is_named() -> None:
    with pytest.raises(ValueError, match=r"Linear is not supported.*WanTransformer3DModel"):
        apply_timeripple(torch.nn.Linear(2, 2))


class TestBareTransformer:
    """A sampling loop written by hand."""

    @staticmethod
    def forward(transformer: Any, timestep: float = 500.0) -> torch.Tensor:
        generator = torch.Generator().manual_seed(1)
        latents = torch.randn(1, transformer.config.in_channels, 5, 8, 12, generator=generator)
        text = torch.randn(1, 7, 64, generator=generator)
        with torch.no_grad():
            return transformer(latents, torch.tensor([timestep]), text, return_dict=False)[0]

    def test_the_step_can_be_set_by_hand(self, random_pipeline: Any) -> None:
        transformer = random_pipeline.transformer
        handle = apply_timeripple(transformer, TimeRippleConfig(1.0, "channel"))
        for step in range(STEPS):
            handle.set_step(step, STEPS)
            self.forward(transformer)
        report = handle.report()
        assert report.dense_steps == (0, 4)
        assert report.savings > 0

    def test_the_step_can_come_from_cache_context(self, random_pipeline: Any) -> None:
        transformer = random_pipeline.transformer
        handle = apply_timeripple(transformer, TimeRippleConfig(1.0, "channel"))
        for step in range(STEPS):
            with transformer.cache_context("cond", step_index=step, num_inference_steps=STEPS):
                self.forward(transformer)
        assert handle.report().dense_steps == (0, 4)

    def test_an_unknown_step_runs_dense_and_is_reported(
        self, random_pipeline: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        transformer = random_pipeline.transformer
        stock = self.forward(transformer)
        handle = apply_timeripple(transformer, TimeRippleConfig(1.0, "channel"))
        with caplog.at_level(logging.WARNING):
            assert torch.equal(self.forward(transformer), stock)
            self.forward(transformer)
        assert handle.report().fallbacks == {"unknown_denoising_step": 2 * LAYERS}
        assert handle.report().savings == 0.0
        assert len([record for record in caplog.records if "unknown_denoising_step" in record.message]) == 1

    def test_a_step_out_of_range_is_refused(self, random_pipeline: Any) -> None:
        handle = apply_timeripple(random_pipeline.transformer)
        with pytest.raises(ValueError, match=r"0\.\.4"):
            handle.set_step(5, 5)


class TestLoopWithAPipelinesScheduler:
    """A loop written by hand around a pipeline's parts."""

    @staticmethod
    def denoise(pipe: Any, scheduler: Any) -> None:
        pipe.scheduler.set_timesteps(STEPS)
        scheduler.set_timesteps(STEPS)
        latents = torch.randn(1, 8, 5, 8, 12)
        with torch.no_grad():
            for timestep in scheduler.timesteps:
                noise = pipe.transformer(latents, timestep[None], torch.ones(1, 7, 64), return_dict=False)[0]
                latents = scheduler.step(noise, timestep, latents, return_dict=False)[0]

    def test_the_step_is_read_off_the_scheduler(self, random_pipeline: Any) -> None:
        handle = apply_timeripple(random_pipeline, TimeRippleConfig(1.0, "channel"))
        for _ in range(2):
            self.denoise(random_pipeline, random_pipeline.scheduler)
        report = handle.report()
        assert (report.dense_steps, report.fallbacks) == ((0, 4), {})
        assert len({count.dense_flops for count in report.by_step.values()}) == 1

    def test_a_scheduler_that_stands_still_is_noticed(self, random_pipeline: Any) -> None:
        """Where a copy of it does the steps, nothing may be taken for the first step for ever."""
        handle = apply_timeripple(random_pipeline, TimeRippleConfig(1.0, "channel"))
        self.denoise(random_pipeline, copy.deepcopy(random_pipeline.scheduler))
        assert handle.report().fallbacks == {"unknown_denoising_step": (STEPS - 1) * LAYERS}


def test_works_with_a_step_cache_of_diffusers(random_pipeline: Any) -> None:
    """Layers that FirstBlockCache skips do not call us and are not counted."""
    random_pipeline.transformer.enable_cache(FirstBlockCacheConfig(threshold=1e9))
    handle = apply_timeripple(random_pipeline.transformer, TimeRippleConfig(1.0, "channel"))
    run(random_pipeline)
    report = handle.report()
    assert report.by_layer[0].dense_flops == 2 * STEPS * CALL_FLOPS
    assert report.by_layer[1].dense_flops == 2 * CALL_FLOPS
