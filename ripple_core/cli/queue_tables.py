"""What `ripple bench queue` prints."""

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from ripple_core.cli.show import console

if TYPE_CHECKING:
    from ripple_core.bench.queue_fleets import SimulationReport
    from ripple_core.bench.queue_load import LoadReport
    from ripple_core.bench.queue_sim import FleetResult, ServedModel, Waits

# A pipe is taken for narrower than the tables are.
_wide = Console(highlight=False, width=120)


def print_fleets(report: "SimulationReport") -> None:
    """What went in, then a row for every fleet and policy."""
    console.print(_origin(report))
    _print_models(report.models)
    by_share = sorted(report.models, key=lambda model: -model.share)
    groups = ("all", "high", "normal", "low", *dict.fromkeys((by_share[0].name, by_share[-1].name)))
    console.print(f"\nSeconds until a job begins, a cold start included: p50 / p99 (seed {report.seed})")
    for key, fleets in groupby(report.fleets, lambda fleet: (fleet.num_gpus, fleet.offered_utilisation)):
        table = Table(*("policy", "loading", "cold", "behind", *groups), box=None, pad_edge=False)
        for fleet in fleets:
            table.add_row(*_figures(fleet), *(_seconds(_waits(fleet, group)) for group in groups))
        console.print(f"\n{key[0]} GPUs, {key[1]:.0%} of their time asked for", style="bold")
        _wide.print(table)
    console.print(
        "\nloading: share of the GPUs' time; cold: jobs that began with loading; behind: jobs still waiting when the "
        f"last one came. Head start, or wait after which a job is overdue: {report.bound_seconds:g} s."
    )


def print_load(report: "LoadReport") -> None:
    """A row for every level."""
    names = ("queued", "jobs/s", "plain RQ/s", "share", "Redis, ms", "files, ms", "submits/s", "bytes/job")
    table = Table(*names, "upkeep, s", "place, ms", "page, ms", box=None, pad_edge=False)
    for level in report.levels:
        table.add_row(
            f"{level.queued:,}",
            f"{level.jobs.median:.0f} ({level.jobs.fastest:.0f})",
            f"{level.plain_rq.median:.0f} ({level.plain_rq.fastest:.0f})",
            f"{level.jobs.median / level.plain_rq.median:.0%}",
            f"{level.redis_cpu_ms:.2f}",
            f"{level.files_ms:.1f}",
            f"{level.submitted_per_second:.0f}",
            "" if level.bytes_per_queued_job is None else f"{level.bytes_per_queued_job:,.0f}",
            f"{level.upkeep_s:.3f}",
            f"{level.place_ms:.2f}",
            f"{level.page_ms:.1f}",
        )
    console.print(
        f"\nOne Redis, one worker whose pipeline does nothing, {report.measured_jobs} jobs at each level; "
        f"jobs a second: median (fastest) of slices of {report.slice_jobs}"
    )
    _wide.print(table)


def _origin(report: "SimulationReport") -> str:
    assumed = "Poisson arrivals; assumed: shares of the priorities, " + ", ".join(
        f"{name} {share:.0%}" for name, share in report.priority_shares.items()
    )
    if report.measured is None:
        return f"Models, their job seconds and load seconds are those of the file. {assumed}."
    sizes = "; ".join(
        f"{size.width}x{size.height}x{size.num_frames} {', '.join(f'{s:.1f}' for s in size.job_seconds)} s"
        for size in report.measured.sizes
    )
    return (
        f"Measured here on one core, built-in model, {report.measured.sizes[0].num_inference_steps} steps: {sizes}; "
        f"load {report.measured.load_seconds:.2f} s; "
        f"reading a file {report.measured.read_bytes_per_second / 1e9:.2f} GB/s.\n"
        f"Assumed: job seconds are the measured ones x {report.scale:g} x the model's work; the models below, their "
        f"shares, work and weights. {assumed}."
    )


def _print_models(models: Sequence["ServedModel"]) -> None:
    table = Table("model", "share", "job, s (mean)", "cold start, s", box=None, pad_edge=False)
    total = sum(model.share for model in models)
    for model in models:
        mean = sum(model.job_seconds) / len(model.job_seconds)
        table.add_row(model.name, f"{model.share / total:.0%}", f"{mean:.0f}", f"{model.load_seconds:.1f}")
    console.print(table)


def _figures(fleet: "FleetResult") -> list[str]:
    return [
        fleet.policy,
        f"{fleet.loading_share:.1%}",
        f"{fleet.cold_starts / fleet.waits.num_jobs:.0%}",
        str(fleet.waiting_at_last_arrival),
    ]


def _waits(fleet: "FleetResult", group: str) -> "Waits | None":
    if group == "all":
        return fleet.waits
    return next((waits for name, waits in fleet.by_priority.items() if name == group), fleet.by_model.get(group))


def _seconds(waits: "Waits | None") -> str:
    return "" if waits is None else f"{waits.p50_s:.0f} / {waits.p99_s:.0f}"
