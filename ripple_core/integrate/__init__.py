"""TimeRipple on diffusers' transformers and pipelines."""

from ripple_core.integrate.apply import apply_method, apply_timeripple, transformers_of
from ripple_core.integrate.handle import TimeRippleHandle

__all__ = ["TimeRippleHandle", "apply_method", "apply_timeripple", "transformers_of"]
