"""What a form of attention must offer to be put on a transformer: TimeRipple's modes, and the bench's baselines."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ripple_core.attention.backend import ripple_on_best_backend
from ripple_core.attention.channel import channel_attention
from ripple_core.attention.config import TimeRippleConfig
from ripple_core.attention.grid import LatentGrid
from ripple_core.attention.savings import Executed

# Below this many video tokens lists of keys cost more time than they save: on two x86 cores 1,024 tokens lose at any
# savings, 2,304 win from two thirds saved on.
SHORT_SEQUENCE = 2048


@dataclass(frozen=True)
class AttentionCall:
    """Where one self-attention call stands.

    Attributes:
        grid: of the video's tokens.
        layer: index of the self-attention layer.
        step: denoising step, 0..num_steps - 1.
        num_steps: denoising steps of the whole video.
        scale: of the scores, None for 1 / sqrt(head_dim).
        text_before: tokens before the video's, in query and key. The video lies at
            ``[text_before : text_before + grid.num_tokens]`` in both; all other tokens, before and after, are text
            (or an image's) and exact.
    """

    grid: LatentGrid
    layer: int
    step: int
    num_steps: int
    scale: float | None = None
    text_before: int = 0


@dataclass(frozen=True)
class RunDense:
    """Says that stock attention shall run.

    Attributes:
        reason: why a call that should have reused does not; None where the step's schedule leaves it dense.
    """

    reason: str | None = None


class AttentionMethod(Protocol):
    """Computes attention its own way and says what that took."""

    @property
    def name(self) -> str:
        """A short word for reports."""

    @property
    def aggressiveness(self) -> float:
        """The dial, 0..1."""

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, call: AttentionCall
    ) -> tuple[Tensor, Executed] | RunDense:
        """The output ``[batch, tokens, heads, head_dim]`` and its cost, or that stock attention shall run.

        Query is ``[batch, tokens, heads, head_dim]`` after RoPE, video tokens in grid order. Key and value may have
        fewer tokens at the end, where padded text was cropped. With Ulysses parallelism heads are this rank's.
        """


@dataclass(frozen=True)
class TimeRipple:
    """Mode `channel` or `ripple` on its step schedule."""

    config: TimeRippleConfig

    @property
    def name(self) -> str:
        """The mode that runs."""
        return "channel" if self.config.mode == "channel" else "ripple"

    @property
    def aggressiveness(self) -> float:
        """The dial of the configuration."""
        return self.config.aggressiveness

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, call: AttentionCall
    ) -> tuple[Tensor, Executed] | RunDense:
        """Reuse as strongly as the step may; mode `auto` leaves short sequences dense."""
        strength = self.config.step_schedule.strength(call.step, call.num_steps)
        if strength is None:
            return RunDense()
        if self.config.mode == "auto" and call.grid.num_tokens < SHORT_SEQUENCE:
            return RunDense("short_sequence")
        if self.name == "ripple":
            profile = self.config.profile
            factor = profile.factor(call.layer, call.step, call.num_steps) if profile else 1.0
            budget = self.config.budget * strength * factor
            return ripple_on_best_backend(query, key, value, call.grid, budget, call.scale, call.text_before)
        theta = self.config.theta * strength
        out, savings_BH = channel_attention(query, key, value, call.grid, theta, call.scale, call.text_before)
        return out, Executed(1 - savings_BH, torch.ones_like(savings_BH))


def method_of(config: TimeRippleConfig) -> AttentionMethod | None:
    """What the configuration asks for; None where the stock attention must stay untouched."""
    if config.mode == "dense" or config.aggressiveness == 0:
        return None
    return TimeRipple(config)
