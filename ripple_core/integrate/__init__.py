"""TimeRipple on diffusers' transformers and pipelines."""

from ripple_core.integrate.apply import TimeRippleHandle, apply_timeripple

__all__ = ["TimeRippleHandle", "apply_timeripple"]
