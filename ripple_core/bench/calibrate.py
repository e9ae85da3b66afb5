"""Calibration: finds which layers and which part of the denoising loop bear reuse, and writes that as a profile.

At the uniform budget that meets the target, reuse in one group of layers (or in one part of the loop) at a time shows
what it costs: squared error of the video for each FLOP saved. Work is spent best where all pay the same price, and
squared error grows with the square of the budget while the saved FLOPs change little, so a group's factor is the root
of the mean price over its own. Then the scale that meets the target is searched for, on other clips than those the
factors come from, and the same savings without a profile show what it is worth.
"""

import hashlib
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import geometric_mean, mean, median
from typing import Literal

import numpy as np
from torch import Tensor

from ripple_core.attention import (
    AttentionCall,
    AttentionMethod,
    Executed,
    ProfileEvidence,
    ReuseProfile,
    RunDense,
    TimeRippleConfig,
    method_of,
)
from ripple_core.attention.profile import part_of_loop
from ripple_core.bench.clip_set import ClipSet, claim_folder, video_grid
from ripple_core.bench.flops import count_transformer
from ripple_core.bench.render import ClipRecord, ClipStore, Renderer
from ripple_core.bench.search import bisect
from ripple_core.bench.variants import Variant
from ripple_core.contract.errors import InvalidRequest, TargetOutOfReach, Violation
from ripple_core.contract.request import DEFAULT_AGGRESSIVENESS
from ripple_core.generate import LoadedModel
from ripple_core.generate.run import MAX_SEQUENCE_LENGTH
from ripple_core.integrate import apply_method

_MOST_LAYER_GROUPS = 8
_LOOP_PARTS = 5
# Far from 1 a factor is more likely noise of few clips than a property of the model.
_SMALLEST_FACTOR, _LARGEST_FACTOR = 1 / 4, 4.0
_SMALLEST_SCALE, _LARGEST_SCALE = 1 / 16, 8.0
# An identical clip counts as one of so many dB, so that means and medians stay finite.
_LARGEST_PSNR_DB = 80.0


@dataclass(frozen=True)
class Target:
    """What aggressiveness 0.5 shall give, in the mean (savings) or median (PSNR) over the checking clips."""

    kind: Literal["psnr", "savings"]
    value: float

    def __str__(self) -> str:
        return f"at least {self.value:g} dB" if self.kind == "psnr" else f"at least {100 * self.value:g}% saved"


@dataclass(frozen=True)
class Outcome:
    """Savings of the whole attention, mean over clips, and median PSNR in dB."""

    savings: float
    psnr_db: float

    def meets(self, target: Target) -> bool:
        """Whether it is as good as the target asks."""
        return (self.psnr_db if target.kind == "psnr" else self.savings) >= target.value


def calibrate(
    clips: ClipSet,
    target: Target,
    model: LoadedModel,
    folder: Path,
    on_progress: Callable[[Variant, int, float], None] = lambda *_: None,
) -> ReuseProfile:
    """Measure a profile; the model's present one, if any, is not used.

    Args:
        clips: an even number; layer and step factors come from the first half, the scale from the second.
        target: to meet.
        model: loaded.
        folder: keeps finished clips, so that the same call goes on where an earlier one stopped.
        on_progress: called with the variant, the clip's index and how far it is, 0..1.

    Raises:
        TargetOutOfReach: when no scale that saves anything meets the target, or the profile found is no better than
            the uniform setting.
        InvalidRequest: for an odd number of clips, a size the model does not take, or a folder that holds a run of
            other clips.
        ModelLoadFailed: for a pipeline with two transformers.
    """
    if len(clips) % 2:
        message = f"{len(clips)} clips cannot be halved; give an even number."
        raise InvalidRequest([Violation("clips", message, "even numbers")])
    requests = clips.requests(model)
    claim_folder(folder, "work", model, requests)
    flops = count_transformer(model.pipe.transformer, MAX_SEQUENCE_LENGTH)
    renderer = Renderer(model, flops, requests, ClipStore(folder / "clips"), on_progress)
    half = len(requests) // 2
    measuring, checking = range(half), range(half, len(requests))
    flat = ReuseProfile(layer_factors=(1.0,) * _num_layers(model))
    typical, _ = _meet(renderer, measuring, flat, target)
    shape = _shape(renderer, measuring, typical)
    profile, outcome = _meet(renderer, checking, shape, target)
    if not outcome.meets(target) or outcome.savings <= 0:
        raise TargetOutOfReach(
            f"{target} is out of reach: the nearest setting found gives {outcome.psnr_db:.1f} dB at "
            f"{outcome.savings:.1%} saved. Nothing was written; ask for less."
        )
    uniform = _as_cheap(renderer, checking, profile, outcome.savings)
    if uniform.psnr_db >= outcome.psnr_db:
        raise TargetOutOfReach(
            f"The profile found is no better than the uniform setting: {outcome.psnr_db:.1f} dB at "
            f"{outcome.savings:.1%} saved against {uniform.psnr_db:.1f} dB at {uniform.savings:.1%}. Nothing was "
            "written; try more clips (--clips)."
        )
    evidence = ProfileEvidence(
        target=str(target),
        clips=len(checking),
        num_inference_steps=requests[0].num_inference_steps,
        video_tokens=video_grid(model, requests[0]).num_tokens,
        savings=outcome.savings,
        psnr_db=outcome.psnr_db,
        uniform_savings=uniform.savings,
        uniform_psnr_db=uniform.psnr_db,
    )
    return profile.model_copy(update={"evidence": evidence})


@dataclass(frozen=True)
class _Only:
    """Mode `ripple` in some layers, or some denoising steps, and dense attention elsewhere."""

    profile: ReuseProfile
    layers: range | None = None
    steps: range | None = None

    @property
    def name(self) -> str:
        what, numbers = ("layers", self.layers) if self.layers else ("steps", self.steps)
        assert numbers is not None
        return f"{what} {numbers[0] + 1} to {numbers[-1] + 1} {self.profile.scale:g}"

    @property
    def aggressiveness(self) -> float:
        return DEFAULT_AGGRESSIVENESS

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, call: AttentionCall
    ) -> tuple[Tensor, Executed] | RunDense:
        """See `AttentionMethod`."""
        inside = (self.layers is None or call.layer in self.layers) and (self.steps is None or call.step in self.steps)
        return _ripple(self.profile).attend(query, key, value, call) if inside else RunDense()


def _ripple(profile: ReuseProfile) -> AttentionMethod:
    method = method_of(TimeRippleConfig(DEFAULT_AGGRESSIVENESS, "ripple", profile=profile))
    assert method is not None
    return method


def _variant(name: str, method: AttentionMethod) -> Variant:
    return Variant(name, "timeripple", "calibration", method=method)


def _num_layers(model: LoadedModel) -> int:
    handle = apply_method(model.pipe.transformer, None)
    handle.remove()
    return handle.num_layers


def _layer_groups(num_layers: int) -> list[range]:
    groups = np.array_split(np.arange(num_layers), min(num_layers, _MOST_LAYER_GROUPS))
    return [range(group[0], group[-1] + 1) for group in groups]


def _loop_parts(num_steps: int) -> list[range]:
    """The steps that each step factor will apply to."""
    parts = min(num_steps, _LOOP_PARTS)
    groups = itertools.groupby(range(num_steps), lambda step: part_of_loop(step, num_steps, parts))
    return [range(steps[0], steps[-1] + 1) for _, group in groups for steps in [list(group)]]


def _shape(renderer: Renderer, clips: range, typical: ReuseProfile) -> ReuseProfile:
    """Factors that make every group of layers, and every part of the loop, pay the same price."""
    layer_groups = _layer_groups(len(typical.layer_factors))
    loop_parts = _loop_parts(renderer.requests[0].num_inference_steps)
    of_group = _factors([_price(renderer, clips, _Only(typical, layers=layers)) for layers in layer_groups])
    of_part = _factors([_price(renderer, clips, _Only(typical, steps=steps)) for steps in loop_parts])
    return ReuseProfile(
        layer_factors=tuple(f for f, layers in zip(of_group, layer_groups, strict=True) for _ in layers),
        step_factors=tuple(of_part),
    )


def _price(renderer: Renderer, clips: range, only: _Only) -> float | None:
    """Squared error of the video for each FLOP saved, geometric mean over clips; None where nothing was saved."""
    records = [renderer.one(_variant(only.name, only), clip).record for clip in clips]
    saved = _savings(records)
    if saved <= 0:
        return None
    return geometric_mean([10 ** (-_psnr(record) / 10) for record in records]) / saved


def _factors(prices: Sequence[float | None]) -> list[float]:
    known = [price for price in prices if price is not None]
    typical = geometric_mean(known) if known else 1.0
    factors = [1.0 if price is None else math.sqrt(typical / price) for price in prices]
    return [round(min(max(factor, _SMALLEST_FACTOR), _LARGEST_FACTOR), 3) for factor in factors]


def _meet(renderer: Renderer, clips: range, shape: ReuseProfile, target: Target) -> tuple[ReuseProfile, Outcome]:
    """The largest scale found that meets a PSNR, or the smallest that meets savings; the extreme one if none does."""
    inside, outside = _SMALLEST_SCALE, _LARGEST_SCALE
    if target.kind == "savings":
        inside, outside = outside, inside
    outcome = _outcome(renderer, clips, _scaled(shape, inside))
    if outcome.meets(target):
        inside = bisect(lambda scale: _outcome(renderer, clips, _scaled(shape, scale)).meets(target), inside, outside)
    profile = _scaled(shape, inside)
    return profile, _outcome(renderer, clips, profile)


def _as_cheap(renderer: Renderer, clips: range, profile: ReuseProfile, savings: float) -> Outcome:
    """Without the profile, at the largest budget found that saves no more: rounded in the uniform setting's favour."""
    flat = ReuseProfile(layer_factors=(1.0,) * len(profile.layer_factors))
    factors = [layer * step for layer in profile.layer_factors for step in profile.step_factors]
    scale = bisect(
        lambda scale: _outcome(renderer, clips, _scaled(flat, scale)).savings <= savings,
        inside=profile.scale * min(factors),
        outside=profile.scale * max(factors),
    )
    return _outcome(renderer, clips, _scaled(flat, scale))


def _scaled(profile: ReuseProfile, scale: float) -> ReuseProfile:
    return profile.model_copy(update={"scale": round(scale, 4)})


def _outcome(renderer: Renderer, clips: range, profile: ReuseProfile) -> Outcome:
    """Of a profile; the name tells its factors apart, so that a clip rendered before is found again."""
    factors = (*profile.layer_factors, *profile.step_factors)
    shape = "uniform" if set(factors) == {1.0} else f"profile {hashlib.sha256(repr(factors).encode()).hexdigest()[:8]}"
    variant = _variant(f"{shape} {profile.scale:g}", _ripple(profile))
    records = [renderer.one(variant, clip).record for clip in clips]
    return Outcome(_savings(records), median(_psnr(record) for record in records))


def _savings(records: list[ClipRecord]) -> float:
    return mean(1 - record.executed_attention_flops / record.dense_attention_flops for record in records)


def _psnr(record: ClipRecord) -> float:
    assert record.fidelity is not None
    psnr_db = record.fidelity.psnr_db
    return _LARGEST_PSNR_DB if psnr_db is None else min(psnr_db, _LARGEST_PSNR_DB)
