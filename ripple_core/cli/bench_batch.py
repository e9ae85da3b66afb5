"""`ripple bench batch`: several videos at once."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ripple_core.cli.bench import write_record
from ripple_core.cli.errors import one_line_errors
from ripple_core.cli.show import console

if TYPE_CHECKING:
    from ripple_core.bench.batch import BatchRow

_SIZES = ["64x64x9", "128x128x17"]
_BATCH_SIZES = [1, 2, 4, 8]


@one_line_errors
def batch(
    model: Annotated[str, typer.Option(help="builtin, a name of `ripple models`, or a pipeline folder.")] = "builtin",
    size: Annotated[list[str], typer.Option(help="WIDTHxHEIGHTxFRAMES, once for each.")] = _SIZES,
    batch_size: Annotated[list[int], typer.Option(min=1, help="Once for each; divides the largest.")] = _BATCH_SIZES,
    steps: Annotated[int, typer.Option(min=1, help="Denoising steps.")] = 4,
    aggressiveness: Annotated[float, typer.Option("-a", "--aggressiveness", min=0, max=1)] = 0.5,
    repeats: Annotated[int, typer.Option(min=1, help="Timed turns of each batch size.")] = 3,
    json: Annotated[Path | None, typer.Option(help="Write the report to this file.")] = None,
    device: Annotated[str, typer.Option(help="A torch device; CUDA when there is one by default.")] = "auto",
) -> None:
    """Make the same videos in batches of different sizes: videos a second, and how far the frames differ."""
    from ripple_core.bench.batch import BatchRun, measure_batches
    from ripple_core.contract.models import find_model
    from ripple_core.generate import load_model

    run = BatchRun([_parse(text) for text in size], batch_size, steps, aggressiveness, repeats)
    if any(max(batch_size) % one for one in batch_size):
        raise typer.BadParameter("each must divide the largest", param_hint="--batch-size")
    console.print(
        "size          batch  videos/s  ratio  denoise s  decode s  saved  max difference  PSNR", style="bold"
    )
    report = measure_batches(run, load_model(find_model(model), device), _print)
    write_record(report, json)


def _parse(size: str) -> tuple[int, int, int]:
    numbers = size.split("x")
    if len(numbers) != 3 or not all(number.isdecimal() for number in numbers):
        raise typer.BadParameter(f"{size} is not WIDTHxHEIGHTxFRAMES", param_hint="--size")
    width, height, num_frames = map(int, numbers)
    return width, height, num_frames


def _print(row: "BatchRow") -> None:
    name = f"{row.width}x{row.height}x{row.num_frames}"
    psnr = "equal" if row.worst_psnr_db is None else f"{row.worst_psnr_db:.1f} dB"
    console.print(
        f"{name:<14}{row.batch_size:5}{row.videos_per_second:10.3f}{row.speedup:7.2f}{row.denoise_seconds:11.2f}"
        f"{row.decode_seconds:10.2f}{row.savings:7.1%}{row.max_difference:16}  {psnr}",
        highlight=False,
    )
