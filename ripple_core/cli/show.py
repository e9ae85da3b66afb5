"""What the commands print: a progress bar and tables."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from ripple_core.contract import job
from ripple_core.contract.metrics import JobMetrics
from ripple_core.notebook import CHANNEL_NOTE

console = Console(highlight=False, soft_wrap=True)

_STAGE_WORDS = {
    "queued": "waiting for a worker",
    "load": "loading the model",
    "text_encode": "reading the prompt",
    "denoise": "denoising",
    "vae_decode": "decoding frames",
    "mp4_encode": "writing the video",
    "store": "storing",
    "quality_check": "rendering it dense",
    "done": "done",
}


@contextmanager
def progress_bar() -> Iterator[Callable[[job.Progress], None]]:
    """A bar for one job; yields what to call with its progress."""
    columns = (
        TextColumn("{task.description:<22}"),
        BarColumn(),
        TextColumn("step {task.fields[step]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(compact=True),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(_STAGE_WORDS["queued"], total=1.0, step="-")

        def update(progress: job.Progress) -> None:
            bar.update(
                task,
                description=_STAGE_WORDS[progress.stage],
                completed=progress.fraction,
                step=f"{progress.step}/{progress.total_steps}" if progress.total_steps else "-",
            )

        yield update
        bar.update(task, description=_STAGE_WORDS["done"], completed=1.0)


def print_metrics(metrics: JobMetrics) -> None:
    """Latency by stage, and what the attention saved."""
    latency = Table("stage", "seconds", title="Latency", title_justify="left")
    latency.columns[1].justify = "right"
    for stage, seconds in metrics.latency_s.model_dump().items():
        latency.add_row(stage, f"{seconds:.2f}")
    attention = metrics.attention
    savings = Table("attention", "", title="Savings", title_justify="left", show_header=False)
    savings.columns[1].justify = "right"
    for name, value in (
        ("mode", attention.mode),
        ("aggressiveness", f"{attention.aggressiveness:g}"),
        ("dense steps", f"{attention.dense_steps} of {len(attention.by_step)}"),
        ("dense GFLOP", f"{attention.dense_flops / 1e9:.2f}"),
        ("executed GFLOP", f"{attention.executed_flops / 1e9:.2f}"),
        ("saved of QK^T", f"{attention.score_savings:.1%}"),
        ("saved of all attention", f"{attention.savings:.1%}"),
        ("fallbacks", str(sum(fallback.calls for fallback in attention.fallbacks))),
    ):
        savings.add_row(name, value)
    console.print(latency)
    console.print(savings)
    if attention.mode == "channel":
        console.print(CHANNEL_NOTE, style="dim")
