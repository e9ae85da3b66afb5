"""Renders clips for the bench and keeps them, so that an interrupted run goes on where it stopped."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from pydantic import BaseModel

from ripple_core.attention import SavingsReport
from ripple_core.bench.attention_error import MeasuredMethod
from ripple_core.bench.clip_metrics import ClipFidelity, compare
from ripple_core.bench.flops import TransformerFlops
from ripple_core.bench.variants import DENSE, Variant
from ripple_core.contract.job import Progress
from ripple_core.contract.request import ResolvedRequest
from ripple_core.generate import LoadedModel, generate_frames


class ClipRecord(BaseModel):
    """What was measured of one clip.

    FLOPs are those of the whole video. `dense_attention_flops` is what the same calls take in full; methods that skip
    calls have fewer of them. `attention_error` (|output - dense| / |dense| of single calls, by layer and step) is
    measured on one clip of a variant.
    """

    prompt: str
    seed: int
    num_inference_steps: int
    executed_attention_flops: int
    dense_attention_flops: int
    score_savings: float
    total_flops: int
    savings_by_step: dict[int, float]
    savings_by_layer_and_head: dict[int, tuple[float, ...]]
    dense_steps: int
    fallbacks: dict[str, int]
    denoise_seconds: float
    attention_error: dict[int, dict[int, float]] | None = None
    fidelity: ClipFidelity | None = None


@dataclass(frozen=True)
class Clip:
    """Frames uint8 ``[num_frames, height, width, 3]`` and their record."""

    frames: np.ndarray
    record: ClipRecord


class ClipStore:
    """Clips in a folder, one pair of files each; the record is written last and makes the clip count."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def load(self, variant: Variant, index: int) -> Clip | None:
        """A finished clip, or None."""
        record, frames = self._paths(variant, index)
        if not record.exists():
            return None
        with np.load(frames) as archive:
            return Clip(archive["frames"], ClipRecord.model_validate_json(record.read_text(encoding="utf-8")))

    def save(self, variant: Variant, index: int, clip: Clip) -> None:
        """Write a clip."""
        record, frames = self._paths(variant, index)
        record.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(frames, frames=clip.frames)
        temporary = record.with_suffix(".tmp")
        temporary.write_text(clip.record.model_dump_json(), encoding="utf-8")
        temporary.rename(record)

    def _paths(self, variant: Variant, index: int) -> tuple[Path, Path]:
        folder = self._folder / variant.slug
        return folder / f"{index:03}.json", folder / f"{index:03}.npz"


class Renderer:
    """Renders any variant of a fixed list of requests.

    Args:
        model: loaded.
        flops: of its transformer.
        requests: one a clip, dense.
        store: where finished clips are kept and found.
        on_progress: called with the variant, the clip's index and how far it is, 0..1.
    """

    def __init__(
        self,
        model: LoadedModel,
        flops: TransformerFlops,
        requests: list[ResolvedRequest],
        store: ClipStore,
        on_progress: Callable[[Variant, int, float], None],
    ) -> None:
        self.model = model
        self.flops = flops
        self.requests = requests
        self._store = store
        self._on_progress = on_progress

    def all(self, variant: Variant) -> list[Clip]:
        """The variant of every clip; the first one's attention errors are measured."""
        return [self.one(variant, index, measure=index == 0) for index in range(len(self.requests))]

    def one(self, variant: Variant, index: int, measure: bool = False) -> Clip:
        """One clip, compared with the dense one, from the store or rendered now."""
        found = self._store.load(variant, index)
        if found is not None:
            self._on_progress(variant, index, 1.0)
            return found
        reference = None if variant is DENSE else self.one(DENSE, index)
        clip = self._render(variant, index, measure)
        if reference is not None:
            fidelity = compare(reference.frames, clip.frames)
            clip = replace(clip, record=clip.record.model_copy(update={"fidelity": fidelity}))
        self._store.save(variant, index, clip)
        return clip

    def _render(self, variant: Variant, index: int, measure: bool) -> Clip:
        request = self.requests[index]
        steps = variant.num_inference_steps or request.num_inference_steps
        request = request.model_copy(update={"num_inference_steps": steps})
        measured = MeasuredMethod(variant.method) if measure and variant.method else None

        def on_progress(progress: Progress) -> None:
            self._on_progress(variant, index, progress.fraction)

        generated = generate_frames(
            self.model, request, on_progress, apply=lambda transformer: variant.apply(transformer, measured)
        )
        self._on_progress(variant, index, 1.0)
        forwards = steps * (2 if request.guidance_scale > 1 else 1)
        record = ClipRecord(
            prompt=request.prompt,
            seed=request.seed,
            num_inference_steps=steps,
            denoise_seconds=generated.latency.denoise,
            attention_error=measured.by_layer_and_step() if measured else None,
            total_flops=self.flops.of_run(generated.report, generated.report.tokens, forwards),
            **_counts(generated.report),
        )
        return Clip(generated.frames, record)


def _counts(report: SavingsReport) -> dict[str, object]:
    return {
        "executed_attention_flops": report.total.executed_flops,
        "dense_attention_flops": report.total.dense_flops,
        "score_savings": report.score_savings,
        "savings_by_step": {step: count.savings for step, count in report.by_step.items()},
        "savings_by_layer_and_head": report.by_layer_and_head,
        "dense_steps": len(report.dense_steps),
        "fallbacks": report.fallbacks,
    }
