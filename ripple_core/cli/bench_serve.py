"""`ripple bench serve`: load on the API."""

import asyncio
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ripple_core.cli.bench import write_record
from ripple_core.cli.errors import one_line_errors
from ripple_core.cli.show import console

if TYPE_CHECKING:
    from ripple_core.bench.serve import ServeReport

# Everything waits, nothing is refused: what is measured is how fast jobs are taken in. One thread for the worker's
# mathematics, as its jobs are too small for two.
_SETTINGS = {"RIPPLE_MAX_QUEUED_JOBS": "1000000", "OMP_NUM_THREADS": "1"}


@one_line_errors
def serve(
    rate: Annotated[float, typer.Option(min=1, help="Submissions a second at a fixed rate.")] = 150,
    seconds: Annotated[float, typer.Option(min=1, help="How long to submit, each time.")] = 20,
    streams: Annotated[int, typer.Option(min=1, help="Event streams open at once.")] = 200,
    json: Annotated[Path | None, typer.Option(help="Write the record to this file.")] = None,
) -> None:
    """Start API, worker and Redis, and put load on them from this process: no GPU is needed."""
    from ripple_core.bench.serve import ServeRun, measure_serving
    from ripple_core.cli.stack import free_port, running_stack

    os.environ |= _SETTINGS
    with (
        tempfile.TemporaryDirectory(prefix="timeripple-") as data_dir,
        running_stack("127.0.0.1", free_port(), Path(data_dir), "builtin", log_level="WARNING") as stack,
    ):
        with console.status("starting Redis, API and worker"):
            stack.wait_until_ready()
        with console.status("measuring"):
            report = asyncio.run(measure_serving(ServeRun(stack.url, rate, seconds, streams)))
    _print(report)
    write_record(report, json)


def _print(report: "ServeReport") -> None:
    start, streams = report.start.post_to_start, report.streams
    console.print(f"POST to job start, idle   p50 {start.p50_ms:.0f} ms, p99 {start.p99_ms:.0f} ms")
    for name, load in (("fixed rate", report.fixed_rate), ("as fast as possible", report.unlimited)):
        console.print(
            f"POST /generate, {name}   "
            f"{load.accepted_per_second:.0f} accepted a second, p50 {load.answer.p50_ms:.0f} ms, "
            f"p99 {load.answer.p99_ms:.0f} ms, {load.jobs_finished} jobs finished meanwhile"
        )
    console.print(
        f"event streams   {streams.complete} of {streams.num_streams} complete, "
        f"delay p50 {streams.delay.p50_ms:.0f} ms, p99 {streams.delay.p99_ms:.0f} ms"
    )
