"""What to reuse: the user's dial and what it means for the thresholds."""

from dataclasses import dataclass
from typing import Literal, get_args

Mode = Literal["auto", "channel", "dense"]
MODES: tuple[Mode, ...] = get_args(Mode)

# Published thresholds: 0.2 rising to 0.5 (arXiv 2511.12035), which the middle of the dial stands for.
_THETA_AT_FULL = 1.0
_THETA_MIN_SHARE = 0.4


@dataclass(frozen=True)
class TimeRippleConfig:
    """How aggressively attention scores are reused.

    Args:
        aggressiveness: 0..1. 0 leaves the stock pipeline as it is; 0.5 uses the published thresholds.
        mode: "channel" is the published form; "dense" never reuses; "auto" takes the best form present.
        dense_share: share of the denoising steps, from the first, that stay dense (published: 10 of 50).
        ramp_share: share of the steps over which the threshold then rises to its full value.

    Raises:
        ValueError: for a value out of range, naming it.
    """

    aggressiveness: float = 0.5
    mode: Mode = "auto"
    dense_share: float = 0.2
    ramp_share: float = 0.2

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"mode is {self.mode!r}; it must be one of {', '.join(MODES)}")
        for name in ("aggressiveness", "dense_share", "ramp_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must lie in 0..1")

    @property
    def resolved_mode(self) -> Literal["channel", "dense"]:
        """The mode that will run: dense when nothing may be reused, else the published form."""
        return "dense" if self.mode == "dense" or self.aggressiveness == 0 else "channel"

    @property
    def theta_max(self) -> float:
        """Threshold on a channel's spread after the ramp, in units of the rotated queries and keys."""
        return _THETA_AT_FULL * self.aggressiveness

    @property
    def theta_min(self) -> float:
        """Threshold at the first step that reuses."""
        return _THETA_MIN_SHARE * self.theta_max
