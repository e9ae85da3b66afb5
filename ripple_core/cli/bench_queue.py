"""`ripple bench queue`: how long jobs wait in fleets of GPUs, and how many jobs one Redis carries."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ripple_core.cli.bench import write_record
from ripple_core.cli.errors import one_line_errors
from ripple_core.cli.queue_tables import print_fleets, print_load
from ripple_core.cli.show import console

if TYPE_CHECKING:
    from ripple_core.bench.queue_fleets import SimulationReport
    from ripple_core.bench.queue_load import LoadReport


@one_line_errors
def queue(
    part: Annotated[Literal["both", "simulation", "load"], typer.Option(help="What to do.")] = "both",
    gpus: Annotated[list[int], typer.Option(min=1, help="GPUs of a simulated fleet; for each.")] = [10, 100, 1000],  # noqa: B006
    utilisation: Annotated[
        list[float], typer.Option(min=0.01, max=0.99, help="Share of the fleet's time that jobs ask for; for each.")
    ] = [0.7, 0.9],  # noqa: B006
    models_per_gpu: Annotated[int, typer.Option(min=1, help="How many models a simulated GPU holds.")] = 1,
    bound: Annotated[float, typer.Option(min=0, help="Seconds of head start, or until a job is overdue.")] = 60,
    scale: Annotated[float, typer.Option(min=0.001, help="Factor on the built-in model's measured seconds.")] = 10,
    load_seconds: Annotated[
        float | None, typer.Option(min=0, help="Of a cold start; by default weights at the measured rate of reading.")
    ] = None,
    history: Annotated[
        Path | None,
        typer.Option(
            help='Models instead of the assumed ones: a JSON list of {"name", "share", "job_seconds": [...], '
            '"load_seconds"}.',
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the simulated jobs.")] = 0,
    queued: Annotated[
        list[int], typer.Option(min=0, help="Jobs that wait on the real Redis while others run; for each.")
    ] = [0, 1000, 10_000, 100_000],  # noqa: B006
    json: Annotated[Path | None, typer.Option(help="Write the record to this file.")] = None,
) -> None:
    """Simulate fleets on measured times; load a real Redis and a worker whose pipeline does nothing. Needs no GPU."""
    from ripple_core.bench.queue_report import QueueReport

    simulation = load = None
    if part != "load":
        simulation = _simulation(gpus, utilisation, models_per_gpu, bound, scale, load_seconds, history, seed)
        print_fleets(simulation)
    if part != "simulation":
        load = _load(sorted(queued))
        print_load(load)
    write_record(QueueReport.of(simulation, load), json)


def _simulation(
    gpus: list[int],
    utilisations: list[float],
    models_per_gpu: int,
    bound: float,
    scale: float,
    load_seconds: float | None,
    history: Path | None,
    seed: int,
) -> "SimulationReport":
    from ripple_core.bench.queue_fleets import FleetRun, simulate_fleets, simulation_report
    from ripple_core.bench.queue_times import measure_times, read_models, served_models

    if history is None:
        with console.status("timing the built-in model"):
            measured = measure_times()
        models = served_models(measured, scale, load_seconds)
    else:
        measured, models = None, read_models(history)
    run = FleetRun(models, gpus, utilisations, models_per_gpu, bound, seed)
    with console.status("simulating"):
        return simulation_report(run, simulate_fleets(run), measured, scale)


def _load(queued: list[int]) -> "LoadReport":
    from ripple_core.bench.queue_load import measure_load
    from ripple_core.embedded_redis import EmbeddedRedis

    with tempfile.TemporaryDirectory(prefix="timeripple-") as folder:
        redis = EmbeddedRedis(Path(folder))
        redis.start()
        try:
            with console.status("loading Redis and a worker"):
                return measure_load(redis.url, Path(folder), queued)
        finally:
            redis.stop()
