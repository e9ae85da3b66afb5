"""What to reuse: the user's dial and what it means for each mode."""

from dataclasses import dataclass
from typing import Literal, get_args

from ripple_core.attention.profile import ReuseProfile
from ripple_core.attention.schedule import PUBLISHED_SCHEDULE, StepSchedule

Mode = Literal["auto", "ripple", "channel", "dense"]
MODES: tuple[Mode, ...] = get_args(Mode)

# Mode `channel`: the middle of the dial stands for the published threshold of 0.5.
_THETA_AT_FULL = 1.0
# Mode `ripple`: read off clips of two tuning prompts (METHOD.md, "The dial and the schedule").
_BUDGET_AT_FULL = 0.8
_BUDGET_POWER = 1.4
RIPPLE_SCHEDULE = StepSchedule(dense_share=0.05, ramp_share=0.6, ramp_from=0.4)


@dataclass(frozen=True)
class TimeRippleConfig:
    """How aggressively attention is reused.

    Args:
        aggressiveness: 0..1. 0 leaves the stock pipeline as it is.
        mode: "ripple" reuses in tiles by estimated error, and runs faster; "channel" is the published form; "dense"
            never reuses; "auto" is "ripple" where it can pay, and dense on short sequences.
        schedule: of the denoising steps; None for the mode's own.
        profile: of the model, from `ripple calibrate`; it changes nothing in mode "channel".

    Raises:
        ValueError: for a value out of range, naming it.
    """

    aggressiveness: float = 0.5
    mode: Mode = "auto"
    schedule: StepSchedule | None = None
    profile: ReuseProfile | None = None

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"mode is {self.mode!r}; it must be one of {', '.join(MODES)}")
        if not 0 <= self.aggressiveness <= 1:
            raise ValueError(f"aggressiveness is {self.aggressiveness}; it must lie in 0..1")

    @property
    def step_schedule(self) -> StepSchedule:
        """The schedule that applies."""
        return self.schedule or (PUBLISHED_SCHEDULE if self.mode == "channel" else RIPPLE_SCHEDULE)

    @property
    def theta(self) -> float:
        """Mode `channel`: threshold on a channel's spread at full strength, in units of rotated queries and keys."""
        return _THETA_AT_FULL * self.aggressiveness

    @property
    def budget(self) -> float:
        """Mode `ripple`: relative error of an attention output that may be spent at full strength, by the dial."""
        return _BUDGET_AT_FULL * self.aggressiveness**_BUDGET_POWER
