"""TimeRipple on the pipeline of every family, from prompt embeddings to video."""

import copy
from typing import Any

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from ripple_core import TimeRippleConfig, apply_timeripple
from ripple_core.attention import AttentionCall, Executed, RunDense, StepSchedule
from ripple_core.integrate import apply_method

STEPS = 5


def close(a: torch.Tensor, b: torch.Tensor) -> float:
    """Distance relative to b."""
    return float((a - b).norm() / b.norm())


def test_aggressiveness_0_is_the_stock_pipeline_bit_for_bit(tiny: Any) -> None:
    output_type = "np" if tiny.decodes else "latent"
    stock = tiny(output_type=output_type)
    handle = apply_timeripple(tiny.pipe, TimeRippleConfig(0.0))
    assert torch.equal(tiny(output_type=output_type), stock)
    report = handle.report()
    assert (report.savings, report.mode, report.fallbacks) == (0.0, "dense", {})
    assert sorted(report.by_step) == list(range(STEPS))


@pytest.mark.parametrize("batch", [1, 2])
def test_reuse_saves_stays_close_and_comes_off_again(tiny: Any, batch: int) -> None:
    """Also: no call is without its step or grid."""
    stock = tiny(batch)
    handle = apply_timeripple(tiny.pipe, TimeRippleConfig(1.0, "channel"))
    reused = tiny(batch)
    handle.remove()
    report = handle.report()
    assert report.fallbacks == {}
    assert report.skipped_flops == 0
    assert report.dense_steps == (0, STEPS - 1)
    assert sorted(report.by_step) == list(range(STEPS))
    assert len(report.by_layer) == tiny.layers
    assert all(count.savings > 0.1 for step, count in report.by_step.items() if step not in report.dense_steps)
    assert 0 < close(reused, stock) < 0.1
    assert torch.equal(tiny(batch), stock)


def test_mode_ripple_runs_in_every_family_and_counts_every_head(tiny: Any) -> None:
    """Grids this small hold little to save: each head either saves or says that it ran dense."""
    stock = tiny()
    handle = apply_timeripple(tiny.pipe, TimeRippleConfig(1.0, "ripple", StepSchedule()))
    reused = tiny()
    report = handle.report()
    assert (report.mode, report.fallbacks, report.dense_steps) == ("ripple", {}, ())
    assert report.savings > 0 or report.dense_heads["little_to_save"] > 0
    assert "not_finite" not in report.dense_heads
    assert close(reused, stock) < 0.3


def test_mode_auto_leaves_short_sequences_dense_and_says_so(tiny: Any) -> None:
    stock = tiny()
    handle = apply_timeripple(tiny.pipe, TimeRippleConfig(1.0, schedule=StepSchedule()))
    assert close(tiny(), stock) == 0
    report = handle.report()
    assert report.fallbacks == {"short_sequence": report.calls}


def test_a_batch_gives_each_item_what_it_gets_alone(tiny: Any) -> None:
    """Items with different numbers of valid text tokens do not disturb one another."""
    apply_timeripple(tiny.pipe, TimeRippleConfig(1.0, "channel"))
    noise = torch.randn(tiny(2).shape, generator=torch.Generator().manual_seed(3))
    together = tiny(2, latents=noise)
    for item in (0, 1):
        # Kandinsky's cumulative lengths start anew.
        prompt = {
            name: value[:2] if value.dtype == torch.int32 else value[item : item + 1]
            for name, value in tiny.prompt(2).items()
        }
        alone = tiny(1, latents=noise[item : item + 1], **prompt)
        assert close(alone, together[item : item + 1]) < 1e-4


class _Spy:
    """Runs dense and remembers where each call stood."""

    name, aggressiveness = "spy", 0.5

    def __init__(self) -> None:
        self.calls: list[tuple[AttentionCall, int, int]] = []

    def attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, call: AttentionCall) -> Any:
        assert key.shape == value.shape
        self.calls.append((call, query.shape[1], key.shape[1]))
        return RunDense()


def test_every_call_knows_its_grid_step_and_layer(tiny: Any) -> None:
    spy = _Spy()
    apply_method(tiny.pipe, spy)
    tiny()
    assert {(call.grid.frames, call.grid.height, call.grid.width) for call, _, _ in spy.calls} == {tiny.grid}
    assert {call.layer for call, _, _ in spy.calls} == set(range(tiny.layers))
    steps = [call.step for call, _, _ in spy.calls]
    assert steps == sorted(steps)
    assert set(steps) == set(range(STEPS))
    assert {call.num_steps for call, _, _ in spy.calls} == {STEPS}
    for call, num_queries, num_keys in spy.calls:
        assert call.text_before + call.grid.num_tokens <= num_keys <= num_queries


def test_another_copy_of_the_pipeline_is_untouched(tiny: Any) -> None:
    other = copy.deepcopy(tiny.pipe.transformer)
    classes = [type(module.processor) for module in other.modules() if hasattr(module, "processor")]
    apply_timeripple(tiny.pipe, TimeRippleConfig(1.0, "channel"))
    assert [type(module.processor) for module in other.modules() if hasattr(module, "processor")] == classes


class _Exact(_Spy):
    """Plain attention over the tokens it is given."""

    def attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, call: AttentionCall) -> Any:
        super().attend(query, key, value, call)
        q, k, v = (x.transpose(1, 2) for x in (query, key, value))
        everything = torch.ones(query.shape[0], query.shape[2])
        return scaled_dot_product_attention(q, k, v, scale=call.scale).transpose(1, 2), Executed(everything, everything)


def test_exact_attention_over_cropped_keys_gives_the_stock_video(tiny: Any) -> None:
    """What a mask hides is padding at the end of the keys, for each batch item its own."""
    stock = tiny(2)
    exact = _Exact()
    handle = apply_method(tiny.pipe, exact)
    assert close(tiny(2), stock) < 1e-4
    report = handle.report()
    assert report.fallbacks == {}
    assert report.total.dense_flops == report.total.executed_flops


def test_a_transformer_without_its_pipeline(tiny_transformer: Any) -> None:
    """Families whose pipeline needs parts that cannot be made here, with the step set by hand."""
    transformer = tiny_transformer.transformer
    stock = tiny_transformer(2)
    counting = apply_timeripple(transformer, TimeRippleConfig(0.0))
    counting.set_step(2, STEPS)
    assert torch.equal(tiny_transformer(2), stock)
    counting.remove()
    handle = apply_timeripple(transformer, TimeRippleConfig(1.0, "channel"))
    handle.set_step(2, STEPS)
    reused = tiny_transformer(2)
    handle.remove()
    report = handle.report()
    assert report.fallbacks == {}
    assert len(report.by_layer) == tiny_transformer.layers
    assert report.total.dense_flops == counting.report().total.dense_flops
    assert report.savings > 0.1
    assert 0 < close(reused, stock) < 0.1
    assert torch.equal(tiny_transformer(2), stock)
