"""TimeRipple: training-free reuse of attention scores in video diffusion transformers.

The public names load on first use, so that importing `ripple_core` loads no torch.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ripple_core.attention import ReuseProfile, SavingsReport, TimeRippleConfig
    from ripple_core.generate import text_to_video
    from ripple_core.integrate import TimeRippleHandle, apply_timeripple

__all__ = ["ReuseProfile", "SavingsReport", "TimeRippleConfig", "TimeRippleHandle", "apply_timeripple", "text_to_video"]


def __getattr__(name: str) -> Any:
    if name in ("ReuseProfile", "SavingsReport", "TimeRippleConfig"):
        from ripple_core import attention

        return getattr(attention, name)
    if name in ("TimeRippleHandle", "apply_timeripple"):
        from ripple_core import integrate

        return getattr(integrate, name)
    if name == "text_to_video":
        from ripple_core import generate

        return generate.text_to_video
    raise AttributeError(f"module 'ripple_core' has no attribute {name!r}")
