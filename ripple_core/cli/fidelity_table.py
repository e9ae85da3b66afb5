"""What `ripple bench fidelity` prints."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich import box
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from ripple_core.bench.report import FidelityReport, VariantReport
from ripple_core.bench.variants import Variant
from ripple_core.cli.show import console

_COLUMNS = ("variant", "QK^T", "attn", "all", "min/med/max dB", "worst", "SSIM", "flicker")
_LEGEND = (
    "Saved of QK^T, of all attention and of the whole transformer, dense steps included; "
    "PSNR in dB over clips and of the worst frame; medians of SSIM and flicker."
)


@contextmanager
def clip_progress(clips: int) -> Iterator[Callable[[Variant, int, float], None]]:
    """A bar for the variant under way, of so many clips; a finished one leaves a line, one that was only tried none."""
    columns = (TextColumn("{task.description:<28}"), BarColumn(), TextColumn("clip {task.fields[clip]}"))
    with Progress(*columns, TimeElapsedColumn(), console=console) as bar:
        tasks: dict[str, TaskID] = {}

        def update(variant: Variant, index: int, fraction: float) -> None:
            if variant.name not in tasks:
                for name in [name for name, task in tasks.items() if not bar.tasks[bar.task_ids.index(task)].finished]:
                    bar.remove_task(tasks.pop(name))
                tasks[variant.name] = bar.add_task(variant.name, total=float(clips), clip="")
            bar.update(tasks[variant.name], completed=index + fraction, clip=f"{index + 1}/{clips}")

        yield update


def print_fidelity(report: FidelityReport) -> None:
    """The table of all variants, and the verdicts."""
    # Tight enough for 80 columns: rich would cut figures short.
    table = Table(*_COLUMNS, title=_title(report), title_justify="left", caption=_LEGEND, caption_justify="left",
                  box=box.SIMPLE, collapse_padding=True, pad_edge=False)  # fmt: skip
    for column in table.columns[1:]:
        column.no_wrap = True
        column.justify = "right"
    for variant in report.variants:
        table.add_row(*_row(variant))
    console.print(table)
    for verdict in report.verdicts:
        console.print(f"- {verdict}")


def _title(report: FidelityReport) -> str:
    clips = f"{len(report.dense)} clips of {report.num_frames} frames {report.width}x{report.height}"
    model = f"{report.model}, calibrated" if report.calibrated else report.model
    return f"{model}: {clips}, {report.video_tokens} tokens, {report.num_inference_steps} steps, {report.device}"


def _row(variant: VariantReport) -> list[str]:
    score = "" if variant.score_savings is None else f"{variant.score_savings:.1%}"
    saved = [score, f"{variant.attention_savings:.1%}", f"{variant.total_savings:.1%}"]
    rest = [f"{variant.ssim.median:.3f}", f"{variant.flicker.median:.2f}"]
    if variant.psnr_db is None:
        return [variant.name, *saved, "identical", "", *rest]
    psnr = (variant.psnr_db.min, variant.psnr_db.median, variant.psnr_db.max)
    return [
        variant.name,
        *saved,
        "/".join(f"{value:.1f}" for value in psnr),
        f"{variant.worst_frame_psnr_db:.1f}",
        *rest,
    ]
