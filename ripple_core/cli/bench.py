"""`ripple bench`: figures, measured."""

from pathlib import Path
from typing import Annotated

import typer

from ripple_core.cli.errors import one_line_errors

DEFAULT_VALUES = [0.0, 0.25, 0.5, 0.75, 1.0]

bench_app = typer.Typer(help="Measure fidelity against savings.", no_args_is_help=True)


@bench_app.callback()
def bench() -> None:
    """Measure fidelity against savings."""


@bench_app.command()
@one_line_errors
def fidelity(
    model: Annotated[str, typer.Option(help="builtin, a name of `ripple models`, or a pipeline folder.")] = "builtin",
    prompts: Annotated[Path | None, typer.Option(help="File with a prompt per line.", exists=True)] = None,
    values: Annotated[
        list[float], typer.Option("-a", "--aggressiveness", min=0, max=1, help="Give it once for each value.")
    ] = DEFAULT_VALUES,
    contact_sheet: Annotated[Path | None, typer.Option(help="PNG with frames of every clip.")] = None,
) -> None:
    """Compare each aggressiveness value's videos with the dense ones of the same prompt and seed."""
    from ripple_core.bench.fidelity import DEFAULT_PROMPTS, measure_fidelity

    lines = prompts.read_text(encoding="utf-8").splitlines() if prompts else DEFAULT_PROMPTS
    measure_fidelity(model, [line for line in lines if line.strip()], values, contact_sheet)
