"""The step schedule and the dial."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ripple_core.attention import StepSchedule, TimeRippleConfig, method_of

PUBLISHED = TimeRippleConfig(aggressiveness=0.5, mode="channel")
schedules = st.builds(
    StepSchedule,
    dense_share=st.floats(0, 1),
    ramp_share=st.floats(0, 1),
    ramp_from=st.floats(0, 1),
    last_step_dense=st.booleans(),
)


def test_channel_at_the_middle_of_the_dial_is_the_published_schedule() -> None:
    """Of 50 steps the first 10 and the last are dense; theta rises from 0.2 to 0.5 over steps 11..21."""
    strengths = [PUBLISHED.step_schedule.strength(step, 50) for step in range(50)]
    assert strengths[:10] == [None] * 10
    assert strengths[49] is None
    thetas = [PUBLISHED.theta * strength for strength in strengths if strength is not None]
    assert thetas[0] == pytest.approx(0.2)
    assert thetas[5] == pytest.approx(0.35)
    assert thetas[10:] == [pytest.approx(0.5)] * 29


@given(schedule=schedules, num_steps=st.integers(1, 60))
def test_strength_is_dense_first_then_never_falls(schedule: StepSchedule, num_steps: int) -> None:
    strengths = [schedule.strength(step, num_steps) for step in range(num_steps)]
    if schedule.last_step_dense:
        assert strengths.pop() is None
    reusing = [strength for strength in strengths if strength is not None]
    assert strengths[: len(strengths) - len(reusing)] == [None] * (len(strengths) - len(reusing))
    assert len(reusing) <= (1 - schedule.dense_share) * num_steps + 1e-9
    assert all(0 <= strength <= 1 for strength in reusing)
    assert reusing == sorted(reusing)


@given(values=st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_theta_and_budget_grow_with_aggressiveness(values: tuple[float, float]) -> None:
    low, high = (TimeRippleConfig(value) for value in sorted(values))
    assert low.theta <= high.theta
    assert low.budget <= high.budget


@pytest.mark.parametrize("config", [TimeRippleConfig(0.0), TimeRippleConfig(1.0, mode="dense")], ids=["zero", "dense"])
def test_nothing_is_reused_when_the_dial_says_so(config: TimeRippleConfig) -> None:
    assert method_of(config) is None


@pytest.mark.parametrize(
    ("arguments", "named"), [({"aggressiveness": 1.1}, "aggressiveness"), ({"mode": "fast"}, "mode")]
)
def test_a_wrong_value_is_named(arguments: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        TimeRippleConfig(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["dense_share", "ramp_share", "ramp_from"])
@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_a_share_out_of_range_is_named(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        StepSchedule(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("step", [-1, 50])
def test_a_step_out_of_range_is_refused(step: int) -> None:
    with pytest.raises(ValueError, match="step"):
        StepSchedule().strength(step, 50)
