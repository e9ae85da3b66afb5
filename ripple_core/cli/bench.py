"""`ripple bench`: figures, measured."""

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ripple_core.cli.errors import one_line_errors
from ripple_core.cli.show import console

if TYPE_CHECKING:
    from pydantic import BaseModel

DEFAULT_VALUES = [0.25, 0.5, 0.75, 1.0]
_QUICK_PROMPTS, _QUICK_STEPS, _QUICK_VALUES = 2, 10, [0.5]

bench_app = typer.Typer(help="Measure fidelity and speed.", no_args_is_help=True)


@bench_app.callback()
def bench() -> None:
    """Measure fidelity and speed."""


@bench_app.command()
@one_line_errors
def fidelity(
    model: Annotated[str, typer.Option(help="builtin, a name of `ripple models`, or a pipeline folder.")] = "builtin",
    prompt_set: Annotated[
        Literal["tuning", "reporting"], typer.Option("--set", help="The built-in prompts to use.")
    ] = "tuning",
    prompts: Annotated[
        Path | None, typer.Option(help="File with a prompt per line, instead of --set.", exists=True, dir_okay=False)
    ] = None,
    mode: Annotated[list[str], typer.Option(help="A mode, once for each.")] = ["ripple"],  # noqa: B006
    values: Annotated[
        list[float] | None,
        typer.Option("-a", "--aggressiveness", min=0, max=1, help=f"Once for each value; {DEFAULT_VALUES}."),
    ] = None,
    baselines_at: Annotated[
        list[float] | None,
        typer.Option(min=0, max=1, help="A value of the first mode whose cost the baselines get; for each."),
    ] = None,
    baselines: Annotated[bool, typer.Option(help="Compare with other methods at equal cost.")] = True,
    seed: Annotated[int, typer.Option(min=0, help="Of the first clip; the others count up.")] = 0,
    seeds_per_prompt: Annotated[int, typer.Option(min=1, help="Clips of each prompt; VBench wants 5.")] = 1,
    steps: Annotated[int | None, typer.Option(min=1, help="Denoising steps; the model's own by default.")] = None,
    width: Annotated[int | None, typer.Option(help="Pixels; the model's own by default.")] = None,
    height: Annotated[int | None, typer.Option(help="Pixels; the model's own by default.")] = None,
    num_frames: Annotated[int | None, typer.Option("--frames", help="The model's own by default.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for report.json, plots and finished clips; resumes there.")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write the report to this file.")] = None,
    vbench_export: Annotated[Path | None, typer.Option(help="Folder for MP4s laid out for VBench.")] = None,
    profile: Annotated[bool, typer.Option(help="Use the model's profile from `ripple calibrate`, if any.")] = True,
    quick: Annotated[bool, typer.Option(help="Two prompts, one value, ten steps.")] = False,
    device: Annotated[str, typer.Option(help="A torch device; CUDA when there is one by default.")] = "auto",
) -> None:
    """Compare each variant's videos with the dense ones of the same prompt and seed."""
    from ripple_core.attention import MODES
    from ripple_core.bench.clip_set import ClipSet
    from ripple_core.bench.fidelity import FidelityRun, measure_fidelity
    from ripple_core.cli.fidelity_table import clip_progress, print_fidelity
    from ripple_core.contract.models import find_model
    from ripple_core.generate import load_model

    modes = [name for name in MODES if name in mode]
    if unknown := set(mode) - set(MODES):
        raise typer.BadParameter(f"{', '.join(unknown)}; known are {', '.join(MODES)}", param_hint="--mode")
    lines = choose_prompts(prompts, prompt_set)
    chosen = values or (_QUICK_VALUES if quick else DEFAULT_VALUES)
    matched = baselines_at or [sorted(chosen)[(len(chosen) - 1) // 2]]
    clips = ClipSet(
        prompts=lines[:_QUICK_PROMPTS] if quick else lines,
        first_seed=seed,
        seeds_per_prompt=seeds_per_prompt,
        num_inference_steps=_QUICK_STEPS if quick and steps is None else steps,
        width=width,
        height=height,
        num_frames=num_frames,
    )
    run = FidelityRun(clips, modes, chosen, baselines_at=matched if baselines else [], use_profile=profile)
    folder = out or Path(tempfile.mkdtemp(prefix="ripple-bench-"))
    try:
        loaded = load_model(find_model(model), device, use_profile=profile)
        with clip_progress(len(clips)) as on_progress:
            report = measure_fidelity(run, loaded, folder, on_progress, vbench_export)
    finally:
        if out is None:
            shutil.rmtree(folder, ignore_errors=True)
    print_fidelity(report)
    write_record(report, json)
    if out is not None:
        console.print(f"Report, plots and clips are in {out}")


@bench_app.command()
@one_line_errors
def attention(
    tokens: Annotated[list[int] | None, typer.Option(help="Multiples of 1024, once for each; CPU only.")] = None,
    heads: Annotated[int | None, typer.Option(min=1, help="CPU only.")] = None,
    head_dim: Annotated[list[int] | None, typer.Option(help="Multiples of 64, once for each; CPU only.")] = None,
    size: Annotated[list[str] | None, typer.Option(help="A model's size, once for each; CUDA only.")] = None,
    savings: Annotated[list[float], typer.Option(min=0, max=0.99, help="Of all attention; for each.")] = [0.6, 0.85],  # noqa: B006
    repeats: Annotated[int, typer.Option(min=1, help="Timed calls of each kind.")] = 5,
    memory: Annotated[bool, typer.Option(help="Measure peak memory, too (Linux, CPU).")] = True,
    json: Annotated[Path | None, typer.Option(help="Write the report to this file.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw time against tokens into this PNG.")] = None,
    device: Annotated[str, typer.Option(help="cpu or a CUDA device.")] = "cpu",
) -> None:
    """Time mode ripple against torch's own attention, on the same inputs in the same run.

    On a CPU at any size; on CUDA the Triton kernels at the sizes of real models, against each of torch's kernels.
    """
    if device != "cpu":
        from ripple_core.cli.bench_gpu import gpu_attention

        if tokens or heads or head_dim or plot:
            raise typer.BadParameter("on CUDA sizes are those of models; choose with --size", param_hint="--tokens")
        return gpu_attention(size, savings, repeats, json, device)
    if size:
        raise typer.BadParameter("models' sizes need --device cuda; choose --tokens on a CPU", param_hint="--size")
    from ripple_core.bench.attention_speed import SpeedRun, measure_speed, plot_speed
    from ripple_core.cli.speed_table import print_speed_header, print_speed_row

    sizes = (tokens or [8192, 16384], heads or 8, head_dim or [64, 128])
    run = SpeedRun(*sizes, savings, repeats=repeats, measure_memory=memory)
    print_speed_header()
    report = measure_speed(run, on_row=print_speed_row)
    write_record(report, json)
    if plot is not None:
        plot_speed(report, plot)
    return None


def write_record(report: "BaseModel", path: Path | None) -> None:
    """As JSON, where a file is given."""
    if path is not None:
        path.write_text(report.model_dump_json(indent=1) + "\n", encoding="utf-8")


def choose_prompts(path: Path | None, prompt_set: Literal["tuning", "reporting"] = "tuning") -> list[str]:
    """The lines of a file that are not empty, else a built-in set.

    Raises:
        BadParameter: for a file without a prompt.
    """
    from ripple_core.bench.prompts import reporting_prompts, tuning_prompts

    if path is None:
        return reporting_prompts() if prompt_set == "reporting" else tuning_prompts()
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not lines:
        raise typer.BadParameter(f"{path} holds no prompt", param_hint="--prompts")
    return lines
