"""`ripple bench` on a GPU: attention at the sizes of real models, whole denoising steps, and tuning."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ripple_core.cli.bench import write_record
from ripple_core.cli.errors import one_line_errors
from ripple_core.cli.show import console

if TYPE_CHECKING:
    import torch

    from ripple_core.bench.gpu_attention import GpuAttentionRow
    from ripple_core.bench.gpu_step import StepRow

_Sizes = Annotated[list[str] | None, typer.Option("--size", help="Once for each; all by default.")]
_Repeats = Annotated[int, typer.Option(min=1, help="Timed calls of each kind, in turn.")]
_Json = Annotated[Path | None, typer.Option(help="Write the record to this file.")]
_Device = Annotated[str, typer.Option(help="A CUDA device.")]


def gpu_attention(sizes: list[str] | None, savings: list[float], repeats: int, json: Path | None, device: str) -> None:
    """What `ripple bench attention` does on CUDA."""
    from ripple_core.bench.video_sizes import VIDEO_SIZES

    chosen = {name: VIDEO_SIZES[name] for name in _known(sizes, VIDEO_SIZES)}
    gpu = _cuda(device)
    from ripple_core.bench.gpu_attention import GpuAttentionRun, measure_gpu_attention

    console.print("Medians in ms, preparing and deciding included; the fastest dense kernel is marked.")
    run = GpuAttentionRun(chosen, savings, repeats)
    write_record(measure_gpu_attention(run, gpu, on_row=print_attention_row), json)


@one_line_errors
def step(
    model: Annotated[list[str] | None, typer.Option(help="Once for each; all by default.")] = None,
    size: _Sizes = None,
    savings: Annotated[list[float], typer.Option(min=0, max=0.99, help="Of all attention; for each.")] = [0.6, 0.85],  # noqa: B006
    steps: Annotated[int, typer.Option(min=1, help="Denoising steps of the video that is projected.")] = 50,
    repeats: _Repeats = 3,
    json: _Json = None,
    device: _Device = "cuda",
) -> None:
    """Time one denoising step of a transformer of real size with random weights, dense and with mode ripple."""
    from ripple_core.bench.gpu_step import STEP_MODELS, STEP_SIZES, StepRun, measure_steps

    run = StepRun(_known(model, STEP_MODELS, "--model"), _known(size, STEP_SIZES), savings, repeats, steps)
    gpu = _cuda(device)
    console.print("Medians of one step in ms. The video's speed-up is projected from them, dense steps included.")
    write_record(measure_steps(run, gpu, on_row=print_step_row), json)


@one_line_errors
def tune(
    size: _Sizes = None,
    savings: Annotated[float, typer.Option(min=0, max=0.99, help="Of all attention, to compare at.")] = 0.85,
    repeats: _Repeats = 3,
    table: Annotated[Path | None, typer.Option(help="Add to this file instead of the package's own table.")] = None,
    device: _Device = "cuda",
) -> None:
    """Find the fastest kernel configurations on this GPU and add them to the table that requests read."""
    from ripple_core.bench.video_sizes import VIDEO_SIZES

    sizes = {name: VIDEO_SIZES[name] for name in _known(size, VIDEO_SIZES)}
    gpu = _cuda(device)
    from ripple_core.attention.kernels.config import TABLE
    from ripple_core.bench.tune import TuneRun, write_table
    from ripple_core.bench.tune import tune as find_fastest

    def on_candidate(name: str, config: Any, ms: float | None) -> None:
        console.print(f"{name:<14} {config.as_list()}  {'does not run' if ms is None else f'{ms:.2f} ms'}")

    console.print("Query tokens, keys at once, warps, stages")
    for entry in find_fastest(TuneRun(sizes, savings, repeats), gpu, on_candidate):
        write_table(table or TABLE, [entry])
    console.print(f"Written to {table or TABLE}")


def _known(chosen: list[str] | None, known: dict[str, Any], option: str = "--size") -> list[str]:
    if unknown := set(chosen or ()) - known.keys():
        raise typer.BadParameter(f"{', '.join(sorted(unknown))}; known are {', '.join(known)}", param_hint=option)
    return chosen or list(known)


def _cuda(device: str) -> "torch.device":
    import torch

    if not device.startswith("cuda") or not torch.cuda.is_available():
        raise typer.BadParameter(f"{device}; this needs a CUDA device, and torch sees none", param_hint="--device")
    torch.cuda.set_device(device)
    return torch.device(device)


def print_attention_row(row: "GpuAttentionRow") -> None:
    """One size at one level of savings."""
    dense = (f"{name}{'*' * (name == row.fastest_dense)} {taken.median:.2f}" for name, taken in row.dense.items())
    columns = [
        f"{row.size:<14} {row.inputs:<6} {row.tokens:7,} tokens",
        f"saved {row.savings:6.1%}",
        f"error {row.relative_error:.3f}",
        *dense,
        f"ours {row.ours.median:.2f}",
        f"{row.speed_up:.2f}x",
        f"deciding {row.deciding_share:.1%}",
    ]
    if row.ours_peak_bytes and row.dense_peak_bytes:
        columns.append(f"memory {row.ours_peak_bytes / row.dense_peak_bytes:.2f}x")
    console.print("  ".join(columns))


def print_step_row(row: "StepRow") -> None:
    """One model at one size and level of savings."""
    columns = [
        f"{row.model:<9} {row.size}",
        f"{row.built} of {row.blocks} blocks",
        f"saved {row.savings:6.1%}",
        f"dense {row.dense.median:.1f}",
        f"ours {row.ours.median:.1f}",
        f"{row.speed_up:.2f}x",
        f"attention {row.attention_share:.0%} of the time",
        f"video {row.video_speed_up:.2f}x",
    ]
    console.print("  ".join(columns))
