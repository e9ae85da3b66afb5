"""What the bench compares: TimeRipple at some aggressiveness, and the baselines."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from ripple_core.attention import AttentionMethod, Mode, ReuseProfile, StepSchedule, TimeRippleConfig, method_of
from ripple_core.bench.attention_error import MeasuredMethod
from ripple_core.bench.block_sparse import BlockSparse
from ripple_core.bench.step_cache import StepCache, first_block_cache, taylor_seer
from ripple_core.generate import AppliedAttention
from ripple_core.integrate import apply_method

Kind = Literal["dense", "timeripple", "block_sparse", "step_cache", "fewer_steps"]
# The FLOPs in which a baseline is as dear as what it is matched to: of all attention, or of the whole transformer.
MatchedIn = Literal["attention", "total"]


@dataclass(frozen=True)
class Variant:
    """One way to make a video.

    Attributes:
        name: unique within a run; names the parameters.
        kind: what family it is of.
        label: the name without parameters that differ between runs, for plots.
        aggressiveness: of TimeRipple, else None.
        method: in place of the stock attention, None for stock.
        step_cache: puts a step cache on the transformer.
        num_inference_steps: instead of the request's.
        schedule: of TimeRipple's denoising steps, else None.
        matched_in: of a baseline, what is equal.
    """

    name: str
    kind: Kind
    label: str
    aggressiveness: float | None = None
    method: AttentionMethod | None = None
    step_cache: Callable[[Any], StepCache] | None = None
    num_inference_steps: int | None = None
    schedule: StepSchedule | None = None
    matched_in: MatchedIn | None = None

    @property
    def slug(self) -> str:
        """The name as a file name."""
        return re.sub(r"[^a-z0-9.]+", "-", self.name.lower())

    def apply(self, transformer: nn.Module, measure: MeasuredMethod | None = None) -> AppliedAttention:
        """Put it on a transformer; measure wraps the method for the one video whose errors are wanted."""
        if self.step_cache:
            return self.step_cache(transformer)
        return apply_method(transformer, measure or self.method)


DENSE = Variant("dense", "dense", "dense")


def timeripple(mode: Mode, aggressiveness: float, profile: ReuseProfile | None = None) -> Variant:
    """TimeRipple in one mode; dense at aggressiveness 0."""
    config = TimeRippleConfig(aggressiveness, mode, profile=profile)
    return Variant(
        f"{mode} {aggressiveness:g}",
        "timeripple",
        mode,
        aggressiveness=aggressiveness,
        method=method_of(config),
        schedule=config.step_schedule,
    )


def block_sparse(kept: int, rest: Literal["drop", "pool"], schedule: StepSchedule) -> Variant:
    """Exact heaviest cells, the rest dropped or pooled; dense in the schedule's dense steps."""
    method = BlockSparse(kept, rest, schedule)
    return Variant(method.name, "block_sparse", f"keep and {rest}", method=method, matched_in="attention")


def first_block(threshold: float) -> Variant:
    """diffusers' FirstBlockCache."""
    name = f"FirstBlockCache {threshold:.4g}"
    return _step_cache(name, "FirstBlockCache", lambda model: first_block_cache(model, threshold))


def taylor(warm_up: int, interval: int) -> Variant:
    """diffusers' TaylorSeer."""
    name = f"TaylorSeer {warm_up} then 1 in {interval}"
    return _step_cache(name, "TaylorSeer", lambda model: taylor_seer(model, warm_up, interval))


def _step_cache(name: str, label: str, step_cache: Callable[[Any], StepCache]) -> Variant:
    return Variant(name, "step_cache", label, step_cache=step_cache, matched_in="total")


def fewer_steps(num_inference_steps: int, matched_in: MatchedIn) -> Variant:
    """Dense attention in fewer denoising steps."""
    name = f"{num_inference_steps} steps"
    return Variant(name, "fewer_steps", "fewer steps", num_inference_steps=num_inference_steps, matched_in=matched_in)
