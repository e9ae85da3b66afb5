"""`ripple calibrate`: a reuse profile for a pipeline folder."""

import os
from pathlib import Path
from typing import Annotated

import typer

from ripple_core.cli.errors import one_line_errors
from ripple_core.cli.show import console

_DEFAULT_PSNR_DB = 32.0


@one_line_errors
def calibrate(
    model: Annotated[str, typer.Argument(metavar="MODEL_FOLDER", help="A pipeline folder, or builtin.")],
    psnr: Annotated[
        float | None, typer.Option(min=10, max=80, help=f"At least so many dB; {_DEFAULT_PSNR_DB:g} by default.")
    ] = None,
    savings: Annotated[
        float | None, typer.Option(min=0.01, max=0.99, help="Instead: at least so much of all attention saved.")
    ] = None,
    clips: Annotated[int, typer.Option(min=1, help="For the factors, and as many others for the scale.")] = 2,
    prompts: Annotated[
        Path | None, typer.Option(help="File with a prompt per line; a built-in set.", exists=True, dir_okay=False)
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the first clip; the others count up.")] = 0,
    steps: Annotated[int | None, typer.Option(min=2, help="Denoising steps; the model's own by default.")] = None,
    width: Annotated[int | None, typer.Option(help="Pixels; the model's own by default.")] = None,
    height: Annotated[int | None, typer.Option(help="Pixels; the model's own by default.")] = None,
    num_frames: Annotated[int | None, typer.Option("--frames", help="The model's own by default.")] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="In the model's folder by default.")] = None,
    work: Annotated[Path, typer.Option(help="Folder for finished clips; resumes there.")] = Path("calibration"),
    device: Annotated[str, typer.Option(help="A torch device; CUDA when there is one by default.")] = "auto",
) -> None:
    """Find where a model bears reuse, so that aggressiveness 0.5 meets a target.

    Renders dozens of clips, and writes reuse_profile.json into the model's folder, where models loaded from then on
    find it. The folder of clips may be deleted afterwards.
    """
    from ripple_core.attention.method import SHORT_SEQUENCE
    from ripple_core.bench.calibrate import Target
    from ripple_core.bench.calibrate import calibrate as measure
    from ripple_core.bench.clip_set import ClipSet
    from ripple_core.cli.bench import choose_prompts
    from ripple_core.cli.fidelity_table import clip_progress
    from ripple_core.contract.models import find_model
    from ripple_core.generate.load import PROFILE_FILE, load_model

    if psnr is not None and savings is not None:
        raise typer.BadParameter("name one target, --psnr or --savings", param_hint="--psnr")
    target = Target("savings", savings) if savings is not None else Target("psnr", psnr or _DEFAULT_PSNR_DB)
    spec = find_model(model)
    if output is None and not Path(spec.source).is_dir():
        raise typer.BadParameter(f"{model} is no folder on this machine; download it, and name the folder")
    path = output or Path(spec.source) / PROFILE_FILE
    if not os.access(path.parent, os.W_OK):
        raise typer.BadParameter(f"{path.parent} cannot be written to; name another file", param_hint="--output")
    lines = choose_prompts(prompts)
    chosen = ClipSet(
        prompts=[lines[index % len(lines)] for index in range(2 * clips)],
        first_seed=seed,
        num_inference_steps=steps,
        width=width,
        height=height,
        num_frames=num_frames,
    )
    loaded = load_model(spec, device, use_profile=False)
    with clip_progress(clips) as on_progress:
        profile = measure(
            chosen, target, loaded, work, lambda variant, index, part: on_progress(variant, index % clips, part)
        )
    temporary = path.with_suffix(".tmp")
    temporary.write_text(profile.model_dump_json(indent=1) + "\n", encoding="utf-8")
    temporary.rename(path)
    evidence = profile.evidence
    assert evidence is not None
    console.print(
        f"{target} at aggressiveness 0.5, on the {evidence.clips} clips that set the scale, and no other factor:"
    )
    console.print(f"  with this profile: {evidence.psnr_db:.1f} dB at {evidence.savings:.1%} of all attention saved")
    console.print(f"  without, at equal work: {evidence.uniform_psnr_db:.1f} dB at {evidence.uniform_savings:.1%}")
    if evidence.video_tokens < SHORT_SEQUENCE:
        console.print(
            f"Mode auto runs dense below {SHORT_SEQUENCE:,} video tokens; these are {evidence.video_tokens:,}."
        )
    console.print(f"Written to {path}")
