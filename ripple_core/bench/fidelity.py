"""The fidelity bench: every clip dense, then every variant, then the baselines at equal cost."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch

from ripple_core.attention import LatentGrid, Mode
from ripple_core.bench.flops import count_transformer
from ripple_core.bench.matching import matched_baselines
from ripple_core.bench.plots import write_contact_sheet, write_plots
from ripple_core.bench.render import Clip, ClipStore, Renderer
from ripple_core.bench.report import FidelityReport, VariantReport, summarise, verdicts
from ripple_core.bench.variants import DENSE, Variant, timeripple
from ripple_core.bench.vbench import VBenchExport
from ripple_core.contract.errors import InvalidRequest, ModelLoadFailed, Violation
from ripple_core.contract.request import GenerateRequest, ResolvedRequest, ReuseSettings
from ripple_core.contract.validate import resolve
from ripple_core.generate import LoadedModel
from ripple_core.generate.run import MAX_SEQUENCE_LENGTH
from ripple_core.integrate import transformers_of
from ripple_core.integrate.families import family_of

_RUN_FILE = "run.json"


@dataclass(frozen=True)
class FidelityRun:
    """What to compare.

    Args:
        prompts: one clip each, times seeds_per_prompt.
        modes: of TimeRipple.
        aggressiveness: values, 0..1, for every mode.
        baselines_at: which of the values of the first mode the baselines are matched to in cost.
        first_seed: the clips count up from it.
        seeds_per_prompt: clips of each prompt.
        num_inference_steps: None for the model's own default; likewise width, height and num_frames.
    """

    prompts: Sequence[str]
    modes: Sequence[Mode] = ("ripple",)
    aggressiveness: Sequence[float] = (0.25, 0.5, 1.0)
    baselines_at: Sequence[float] = (0.5,)
    first_seed: int = 0
    seeds_per_prompt: int = 1
    num_inference_steps: int | None = None
    width: int | None = None
    height: int | None = None
    num_frames: int | None = None

    def requests(self, model: LoadedModel) -> list[ResolvedRequest]:
        """One dense request a clip.

        Raises:
            InvalidRequest: for a size the model does not take.
            ValidationError: for a prompt or number that no model takes.
        """
        prompts = [prompt for prompt in self.prompts for _ in range(self.seeds_per_prompt)]
        return [
            resolve(
                GenerateRequest(
                    prompt=prompt,
                    seed=self.first_seed + index,
                    num_inference_steps=self.num_inference_steps,
                    width=self.width,
                    height=self.height,
                    num_frames=self.num_frames,
                    reuse=ReuseSettings(mode="dense"),
                ),
                model.spec,
            )
            for index, prompt in enumerate(prompts)
        ]


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
    if len(transformers_of(model.pipe)) > 1:
        raise ModelLoadFailed(f"{model.spec.id} has two transformers; the bench measures pipelines with one.")
    if unmeasured := set(run.baselines_at) - set(run.aggressiveness):
        allowed = ", ".join(f"{value:g}" for value in run.aggressiveness)
        message = f"{min(unmeasured):g} is not among the values measured; name one of {allowed}."
        raise InvalidRequest([Violation("baselines_at", message, allowed)])
    requests = run.requests(model)
    _claim(folder, model, requests)
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

    rendered = {variant: measure(variant) for variant in _timeripple_variants(run)}
    for variant, clips in rendered.items():
        first_mode = variant.label == run.modes[0]
        if first_mode and variant.aggressiveness in run.baselines_at and variant.method is not None:
            assert variant.schedule
            for baseline in matched_baselines(renderer, dense, clips, _grid(model, requests[0]), variant.schedule):
                measure(baseline, matched_to=variant.name)
    report = _report(model, requests[0], dense, reports)
    (folder / "report.json").write_text(report.model_dump_json(indent=1) + "\n", encoding="utf-8")
    write_plots(report, folder)
    return report


def _timeripple_variants(run: FidelityRun) -> list[Variant]:
    return [timeripple(mode, value) for mode in run.modes for value in run.aggressiveness]


def _grid(model: LoadedModel, request: ResolvedRequest) -> LatentGrid:
    pipe = model.pipe
    frames = (request.num_frames - 1) // pipe.vae_scale_factor_temporal + 1
    size = (side // pipe.vae_scale_factor_spatial for side in (request.height, request.width))
    latents = torch.empty(1, pipe.transformer.config.in_channels, frames, *size, device="meta")
    grid = family_of(pipe.transformer).grid(pipe.transformer, {"hidden_states": latents})
    assert grid is not None
    return grid


def _claim(folder: Path, model: LoadedModel, requests: list[ResolvedRequest]) -> None:
    """Take a new or empty folder, or one that holds a run of the same clips."""
    folder.mkdir(parents=True, exist_ok=True)
    run = {
        "timeripple": version("timeripple"),
        "weights": _fingerprint(model),
        "requests": [request.model_dump(mode="json") for request in requests],
    }
    path = folder / _RUN_FILE
    if path.exists() and json.loads(path.read_text(encoding="utf-8")) != run:
        message = f"{folder} holds a run with another model, other prompts, seeds or sizes; name another folder."
        raise InvalidRequest([Violation("out", message, "a new folder, or one of the same run")])
    path.write_text(json.dumps(run, indent=1) + "\n", encoding="utf-8")


def _fingerprint(model: LoadedModel) -> str:
    """Tells one set of weights from another by a few values of every tensor."""
    parameters = model.pipe.transformer.named_parameters()
    sample = {name: parameter.detach().flatten()[:16].float().cpu().numpy().tobytes() for name, parameter in parameters}
    return hashlib.sha256(b"".join(name.encode() + values for name, values in sorted(sample.items()))).hexdigest()


def _report(
    model: LoadedModel, request: ResolvedRequest, dense: list[Clip], variants: list[VariantReport]
) -> FidelityReport:
    return FidelityReport(
        timeripple_version=version("timeripple"),
        torch_version=torch.__version__,
        model=model.spec.id,
        device=model.device_name,
        dtype=str(model.dtype).removeprefix("torch."),
        width=request.width,
        height=request.height,
        num_frames=request.num_frames,
        num_inference_steps=request.num_inference_steps,
        guidance_scale=request.guidance_scale,
        video_tokens=_grid(model, request).num_tokens,
        dense=[clip.record for clip in dense],
        variants=variants,
        verdicts=verdicts(variants),
    )
