"""Profiles: which factor a call gets, and what more of it does."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ripple_core.attention import AttentionCall, LatentGrid, ReuseProfile, RunDense, TimeRippleConfig, method_of


def test_a_call_gets_scale_times_its_layers_and_its_parts_factor() -> None:
    profile = ReuseProfile(layer_factors=(1.0, 3.0), step_factors=(0.5, 1.0, 2.0), scale=10)
    assert [profile.factor(1, step, 7) for step in range(7)] == [15, 15, 15, 30, 30, 60, 60]
    assert profile.factor(0, 0, 1) == 5


@pytest.mark.parametrize(
    "wrong",
    [
        {"layer_factors": ()},
        {"layer_factors": (0.0,)},
        {"scale": -1},
        {"scale": float("inf")},
        {"step_factors": ()},
        {"budget": 1},
    ],
)
def test_wrong_profiles_are_refused_by_field(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError) as caught:
        ReuseProfile.model_validate({"layer_factors": (1.0,)} | wrong)
    assert caught.value.errors()[0]["loc"][0] in wrong


@settings(max_examples=15, deadline=None)
@given(factors=st.lists(st.floats(0.05, 20), min_size=2, max_size=4), seed=st.integers(0, 20))
def test_a_larger_factor_never_saves_less(factors: list[float], seed: int) -> None:
    grid = LatentGrid(4, 8, 8)
    generator = torch.Generator().manual_seed(seed)
    q, k, v = (torch.randn(1, grid.num_tokens, 1, 16, generator=generator) for _ in range(3))

    def saved(factor: float) -> float:
        method = method_of(TimeRippleConfig(0.3, "ripple", profile=ReuseProfile(layer_factors=(1.0, factor))))
        assert method is not None
        result = method.attend(q, k, v, AttentionCall(grid, layer=1, step=9, num_steps=10))
        assert not isinstance(result, RunDense)
        return 1 - float(result[1].values_H[0])

    savings = [saved(factor) for factor in sorted(factors)]
    assert savings == sorted(savings)
    assert saved(1000) > 0.9


def test_mode_channel_leaves_the_profile_unread() -> None:
    grid = LatentGrid(2, 4, 4)
    q, k, v = torch.randn(3, 1, grid.num_tokens, 1, 8)
    call = AttentionCall(grid, layer=0, step=5, num_steps=10)
    outs = []
    for profile in (None, ReuseProfile(layer_factors=(4.0,))):
        method = method_of(TimeRippleConfig(0.5, "channel", profile=profile))
        assert method is not None
        result = method.attend(q, k, v, call)
        assert not isinstance(result, RunDense)
        outs.append(result[0])
    assert torch.equal(*outs)
