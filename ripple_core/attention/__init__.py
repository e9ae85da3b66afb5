"""The attention operator: configuration, modes and the counting of what ran."""

from ripple_core.attention.backend import ripple_on_best_backend
from ripple_core.attention.channel import channel_attention
from ripple_core.attention.config import MODES, Mode, TimeRippleConfig
from ripple_core.attention.dense import dense_attention
from ripple_core.attention.grid import LatentGrid
from ripple_core.attention.method import AttentionCall, AttentionMethod, RunDense, method_of
from ripple_core.attention.profile import ProfileEvidence, ReuseProfile
from ripple_core.attention.ripple import ripple_attention
from ripple_core.attention.savings import Executed, FlopCount, SavingsCounter, SavingsReport
from ripple_core.attention.schedule import StepSchedule

__all__ = [
    "MODES",
    "AttentionCall",
    "AttentionMethod",
    "Executed",
    "FlopCount",
    "LatentGrid",
    "Mode",
    "ProfileEvidence",
    "ReuseProfile",
    "RunDense",
    "SavingsCounter",
    "SavingsReport",
    "StepSchedule",
    "TimeRippleConfig",
    "channel_attention",
    "dense_attention",
    "method_of",
    "ripple_attention",
    "ripple_on_best_backend",
]
