"""Which denoising steps reuse, and with what threshold (arXiv 2511.12035, section on step schedule)."""

import math

from ripple_core.attention.config import TimeRippleConfig


def theta_of_step(config: TimeRippleConfig, step: int, num_steps: int) -> float | None:
    """Threshold of one denoising step, or None for a dense one.

    The first `dense_share` of the steps and the last one are dense; the threshold then rises linearly from
    `theta_min` to `theta_max` over `ramp_share` of the steps. For 50 steps: 1..10 dense, 11..21 the ramp, 50 dense.

    Args:
        config: the dial.
        step: 0..num_steps - 1.
        num_steps: denoising steps of the whole video.

    Raises:
        ValueError: when step is out of range.
    """
    if not 0 <= step < num_steps:
        raise ValueError(f"step is {step}; it must lie in 0..{num_steps - 1}")
    first = math.ceil(config.dense_share * num_steps)
    if config.resolved_mode == "dense" or step < first or step == num_steps - 1:
        return None
    ramp = config.ramp_share * num_steps
    progress = 1.0 if ramp == 0 else min((step - first) / ramp, 1.0)
    return config.theta_min + (config.theta_max - config.theta_min) * progress
