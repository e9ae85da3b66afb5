"""The fidelity report: every figure of a run, and in plain words which method lost to what."""

from collections.abc import Sequence
from statistics import mean, median
from typing import Self

from pydantic import BaseModel, Field

from ripple_core.bench.render import Clip, ClipRecord
from ripple_core.bench.variants import Kind, MatchedIn, Variant


class Spread(BaseModel):
    """Over the clips that differ from the dense ones."""

    min: float
    median: float
    mean: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """At least one value."""
        return cls(min=min(values), median=median(values), mean=mean(values), max=max(values))


class VariantReport(BaseModel):
    """One variant over all clips. Savings are shares of the dense run's FLOPs, 0..1, averaged over clips."""

    name: str
    kind: Kind
    label: str
    aggressiveness: float | None
    matched_to: str | None = Field(description="The variant whose cost this baseline was set to.")
    matched_in: MatchedIn | None = Field(None, description="FLOPs in which it costs as much.")
    num_inference_steps: int
    attention_savings: float = Field(description="Of all self-attention FLOPs, dense steps included.")
    score_savings: float | None = Field(description="Of QK^T alone; None for what skips whole calls.")
    total_savings: float = Field(description="Of the transformer's FLOPs.")
    identical_clips: int
    psnr_db: Spread | None = Field(description="None when every clip is identical.")
    worst_frame_psnr_db: float | None
    ssim: Spread
    flicker: Spread = Field(description="Mean absolute difference of frame-to-frame differences, levels of 0..255.")
    denoise_seconds: float = Field(
        description="Mean on this machine, without the clip whose attention errors were measured if there are others."
    )
    savings_by_step: dict[int, float] | None = Field(description="Mean over clips; None for what skips whole calls.")
    savings_by_layer_and_head: dict[int, list[float]] | None
    attention_error: dict[int, dict[int, float]] | None = Field(
        description="|output - dense| / |dense| by layer and step, first clip."
    )
    clips: list[ClipRecord]


class FidelityReport(BaseModel):
    """A whole run of `ripple bench fidelity`."""

    timeripple_version: str
    torch_version: str
    model: str
    calibrated: bool = Field(False, description="Whether mode ripple ran with the model's profile.")
    device: str
    dtype: str
    width: int
    height: int
    num_frames: int
    num_inference_steps: int
    guidance_scale: float
    video_tokens: int
    dense: list[ClipRecord]
    variants: list[VariantReport]
    verdicts: list[str]


def summarise(variant: Variant, clips: list[Clip], dense: list[Clip], matched_to: str | None) -> VariantReport:
    """Put a variant's clips together; clips and dense are in the same order."""
    records, whole = [clip.record for clip in clips], [clip.record for clip in dense]
    fidelities = [record.fidelity for record in records if record.fidelity is not None]
    psnr = [fidelity.psnr_db for fidelity in fidelities if fidelity.psnr_db is not None]
    worst = [fidelity.worst_frame_psnr_db for fidelity in fidelities if fidelity.worst_frame_psnr_db is not None]
    skips_calls = variant.kind in ("step_cache", "fewer_steps")
    return VariantReport(
        name=variant.name,
        kind=variant.kind,
        label=variant.label,
        aggressiveness=variant.aggressiveness,
        matched_to=matched_to,
        matched_in=variant.matched_in,
        num_inference_steps=records[0].num_inference_steps,
        attention_savings=_saved(records, whole, "executed_attention_flops"),
        score_savings=None if skips_calls else mean(record.score_savings for record in records),
        total_savings=_saved(records, whole, "total_flops"),
        identical_clips=sum(fidelity.identical for fidelity in fidelities),
        psnr_db=Spread.of(psnr) if psnr else None,
        worst_frame_psnr_db=min(worst, default=None),
        ssim=Spread.of([fidelity.ssim for fidelity in fidelities]),
        flicker=Spread.of([fidelity.flicker for fidelity in fidelities]),
        denoise_seconds=mean(_unmeasured(records)),
        savings_by_step=None if skips_calls else _mean_by_step(records),
        savings_by_layer_and_head=None if skips_calls else _mean_by_layer_and_head(records),
        attention_error=records[0].attention_error,
        clips=records,
    )


def _unmeasured(records: list[ClipRecord]) -> list[float]:
    plain = [record.denoise_seconds for record in records if record.attention_error is None]
    return plain or [record.denoise_seconds for record in records]


def _saved(records: list[ClipRecord], whole: list[ClipRecord], name: str) -> float:
    pairs = zip(records, whole, strict=True)
    return mean(1 - getattr(record, name) / getattr(dense, name) for record, dense in pairs)


def _mean_by_step(records: list[ClipRecord]) -> dict[int, float]:
    return {step: mean(record.savings_by_step[step] for record in records) for step in records[0].savings_by_step}


def _mean_by_layer_and_head(records: list[ClipRecord]) -> dict[int, list[float]]:
    by_layer = {layer: [record.savings_by_layer_and_head[layer] for record in records]
                for layer in records[0].savings_by_layer_and_head}  # fmt: skip
    return {layer: [mean(head) for head in zip(*heads, strict=True)] for layer, heads in by_layer.items()}


def verdicts(reports: list[VariantReport]) -> list[str]:
    """A sentence for every baseline: does the variant it was matched to win, by median PSNR and clip by clip?"""
    by_name = {report.name: report for report in reports}
    return [_verdict(by_name[base.matched_to], base) for base in reports if base.matched_to]


def _verdict(ours: VariantReport, base: VariantReport) -> str:
    what = base.matched_in
    setting = f"at {_savings_of(ours, what):.1%} (baseline {_savings_of(base, what):.1%}) of {what} FLOPs saved"
    if ours.psnr_db is None or base.psnr_db is None:
        return f"{ours.name} against {base.name}, {setting}: no comparison, one of them changed nothing."
    won = sum(_psnr(mine) > _psnr(other) for mine, other in zip(ours.clips, base.clips, strict=True))
    figures = f"{ours.psnr_db.median:.1f} dB against {base.psnr_db.median:.1f} dB (median), {won} of {len(ours.clips)}"
    if ours.psnr_db.median > base.psnr_db.median:
        return f"{ours.name} beats {base.name}, {setting}: {figures} clips better."
    ending = " A method that loses to fewer steps is not worth shipping." if base.kind == "fewer_steps" else ""
    return f"{ours.name} LOSES to {base.name}, {setting}: {figures} clips better.{ending}"


def _savings_of(report: VariantReport, what: MatchedIn | None) -> float:
    return report.attention_savings if what == "attention" else report.total_savings


def _psnr(record: ClipRecord) -> float:
    fidelity = record.fidelity
    return float("inf") if fidelity is None or fidelity.psnr_db is None else fidelity.psnr_db
