"""The fidelity bench: every clip dense, then every variant, then the baselines at equal cost."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch

from ripple_core.attention import Mode, ReuseProfile
from ripple_core.bench.clip_set import ClipSet, claim_folder, video_grid
from ripple_core.bench.flops import count_transformer
from ripple_core.bench.matching import matched_baselines
from ripple_core.bench.plots import write_contact_sheet, write_plots
from ripple_core.bench.render import Clip, ClipStore, Renderer
from ripple_core.bench.report import FidelityReport, VariantReport, summarise, verdicts
from ripple_core.bench.variants import DENSE, Variant, timeripple
from ripple_core.bench.vbench import VBenchExport
from ripple_core.contract.errors import InvalidRequest, Violation
from ripple_core.contract.request import ResolvedRequest
from ripple_core.generate import LoadedModel
from ripple_core.generate.run import MAX_SEQUENCE_LENGTH


@dataclass(frozen=True)
class FidelityRun:
    """What to compare.

    Args:
        clips: to render.
        modes: of TimeRipple.
        aggressiveness: values, 0..1, for every mode.
        baselines_at: which of the values of the first mode the baselines are matched to in cost.
        use_profile: whether mode ripple takes the model's profile, where it has one.
    """

    clips: ClipSet
    modes: Sequence[Mode] = ("ripple",)
    aggressiveness: Sequence[float] = (0.25, 0.5, 1.0)
    baselines_at: Sequence[float] = (0.5,)
    use_profile: bool = True


def measure_fidelity(
    run: FidelityRun,
    model: LoadedModel,
    folder: Path,
    on_progress: Callable[[Variant, int, float], None] = lambda *_: None,
    vbench_folder: Path | None = None,
) -> FidelityReport:
    """Render, compare and write `report.json`, plots and contact sheets into the folder.

    Finished clips lie in the folder as well, so the same call again goes on where an earlier one stopped, and a call
    with more values or modes renders only those.

    Raises:
        InvalidRequest: for a size the model does not take, a baselines_at that is not measured, or a folder that
            holds a run of other clips.
        ValidationError: for a prompt or number that no model takes.
        ModelLoadFailed: for a pipeline with two transformers, whose FLOPs are not counted here.
    """
    if unmeasured := set(run.baselines_at) - set(run.aggressiveness):
        allowed = ", ".join(f"{value:g}" for value in run.aggressiveness)
        message = f"{min(unmeasured):g} is not among the values measured; name one of {allowed}."
        raise InvalidRequest([Violation("baselines_at", message, allowed)])
    requests = run.clips.requests(model)
    profile = model.profile if run.use_profile and set(run.modes) - {"channel", "dense"} else None
    claim_folder(folder, "out", model, requests, profile)
    flops = count_transformer(model.pipe.transformer, MAX_SEQUENCE_LENGTH)
    renderer = Renderer(model, flops, requests, ClipStore(folder / "clips"), on_progress)
    export = VBenchExport(vbench_folder, [r.prompt for r in requests], requests[0].fps) if vbench_folder else None
    if export:
        export.write_prompts()
    dense = renderer.all(DENSE)
    if export:
        export.write_clips(DENSE.name, (clip.frames for clip in dense))

    reports = []

    def measure(variant: Variant, matched_to: str | None = None) -> list[Clip]:
        clips = renderer.all(variant)
        reports.append(summarise(variant, clips, dense, matched_to))
        write_contact_sheet(folder / f"contact-{variant.slug}.png", dense, clips, variant.name)
        if export:
            export.write_clips(variant.slug, (clip.frames for clip in clips))
        return clips

    rendered = {variant: measure(variant) for variant in _timeripple_variants(run, profile)}
    for variant, clips in rendered.items():
        first_mode = variant.label == run.modes[0]
        if first_mode and variant.aggressiveness in run.baselines_at and variant.method is not None:
            assert variant.schedule
            for baseline in matched_baselines(renderer, dense, clips, video_grid(model, requests[0]), variant.schedule):
                measure(baseline, matched_to=variant.name)
    report = _report(model, requests[0], profile, dense, reports)
    (folder / "report.json").write_text(report.model_dump_json(indent=1) + "\n", encoding="utf-8")
    write_plots(report, folder)
    return report


def _timeripple_variants(run: FidelityRun, profile: ReuseProfile | None) -> list[Variant]:
    return [timeripple(mode, value, profile) for mode in run.modes for value in run.aggressiveness]


def _report(
    model: LoadedModel,
    request: ResolvedRequest,
    profile: ReuseProfile | None,
    dense: list[Clip],
    variants: list[VariantReport],
) -> FidelityReport:
    return FidelityReport(
        timeripple_version=version("timeripple"),
        torch_version=torch.__version__,
        model=model.spec.id,
        calibrated=profile is not None,
        device=model.device_name,
        dtype=str(model.dtype).removeprefix("torch."),
        width=request.width,
        height=request.height,
        num_frames=request.num_frames,
        num_inference_steps=request.num_inference_steps,
        guidance_scale=request.guidance_scale,
        video_tokens=video_grid(model, request).num_tokens,
        dense=[clip.record for clip in dense],
        variants=variants,
        verdicts=verdicts(variants),
    )
