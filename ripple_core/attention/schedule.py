"""Which denoising steps reuse, and how strongly."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class StepSchedule:
    """Dense steps first, then a ramp to full strength.

    Args:
        dense_share: share of the denoising steps, from the first, that stay dense, 0..1; rounded up to whole steps.
        ramp_share: share of the steps over which strength then rises linearly to 1, 0..1.
        ramp_from: strength at the first step that reuses, 0..1.
        last_step_dense: whether the last step stays dense.

    Raises:
        ValueError: for a value out of range, naming it.
    """

    dense_share: float = 0.0
    ramp_share: float = 0.0
    ramp_from: float = 1.0
    last_step_dense: bool = False

    def __post_init__(self) -> None:
        for name in ("dense_share", "ramp_share", "ramp_from"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must lie in 0..1")

    def strength(self, step: int, num_steps: int) -> float | None:
        """Strength of one denoising step, 0..1, or None for a dense one.

        Args:
            step: 0..num_steps - 1.
            num_steps: denoising steps of the whole video.

        Raises:
            ValueError: when step is out of range.
        """
        if not 0 <= step < num_steps:
            raise ValueError(f"step is {step}; it must lie in 0..{num_steps - 1}")
        first = math.ceil(self.dense_share * num_steps)
        if step < first or (self.last_step_dense and step == num_steps - 1):
            return None
        ramp = self.ramp_share * num_steps
        progress = 1.0 if ramp == 0 else min((step - first) / ramp, 1.0)
        return self.ramp_from + (1 - self.ramp_from) * progress


# For 50 steps: 1..10 dense, 11..21 the ramp from theta 0.2 to 0.5, 50 dense (arXiv 2511.12035).
PUBLISHED_SCHEDULE = StepSchedule(dense_share=0.2, ramp_share=0.2, ramp_from=0.4, last_step_dense=True)
