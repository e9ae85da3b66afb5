"""TimeRipple on diffusers' transformers and pipelines."""

from ripple_core.integrate.apply import TimeRippleHandle, apply_method, apply_timeripple

__all__ = ["TimeRippleHandle", "apply_method", "apply_timeripple"]
