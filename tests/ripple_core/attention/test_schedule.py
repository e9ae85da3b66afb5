"""The published step schedule and the dial."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ripple_core.attention import TimeRippleConfig, theta_of_step

PUBLISHED = TimeRippleConfig(aggressiveness=0.5)


def test_the_middle_of_the_dial_is_the_published_schedule() -> None:
    """Of 50 steps the first 10 and the last are dense; theta rises from 0.2 to 0.5 over steps 11..21."""
    thetas = [theta_of_step(PUBLISHED, step, 50) for step in range(50)]
    assert thetas[:10] == [None] * 10
    assert thetas[49] is None
    assert thetas[10] == pytest.approx(0.2)
    assert thetas[15] == pytest.approx(0.35)
    assert thetas[20:49] == [pytest.approx(0.5)] * 29


@given(
    step=st.integers(0, 59), values=st.tuples(st.floats(0, 1), st.floats(0, 1)), num_steps=st.integers(1, 60)
)  # fmt: skip
def test_the_threshold_grows_with_aggressiveness(step: int, values: tuple[float, float], num_steps: int) -> None:
    step %= num_steps
    low, high = (theta_of_step(TimeRippleConfig(value), step, num_steps) or 0.0 for value in sorted(values))
    assert low <= high


@pytest.mark.parametrize("num_steps", [1, 2])
def test_very_short_schedules_are_dense(num_steps: int) -> None:
    assert all(theta_of_step(TimeRippleConfig(1.0), step, num_steps) is None for step in range(num_steps))


@pytest.mark.parametrize("config", [TimeRippleConfig(0.0), TimeRippleConfig(1.0, mode="dense")], ids=["zero", "dense"])
def test_nothing_is_reused_when_the_dial_says_so(config: TimeRippleConfig) -> None:
    assert all(theta_of_step(config, step, 30) is None for step in range(30))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [({"aggressiveness": 1.1}, "aggressiveness"), ({"mode": "fast"}, "mode"), ({"dense_share": -1}, "dense_share")],
)
def test_a_wrong_value_is_named(arguments: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        TimeRippleConfig(**arguments)  # type: ignore[arg-type]


def test_a_step_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match="step"):
        theta_of_step(PUBLISHED, 50, 50)
